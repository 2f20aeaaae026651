"""report/ needs NumPy and rich, and never loads TensorFlow."""

import subprocess
import sys
from pathlib import Path

import pytest

import relu_probe.report

FOLDER = Path(relu_probe.report.__file__).parent
MODULES = sorted(f"relu_probe.report.{path.stem}" for path in FOLDER.glob("*.py") if path.stem != "__init__")
ALLOWED = {"numpy", "rich", "relu_probe"}

# Prints the top-level packages that an import loads, without those that Python loads at its start. rich loads packages of
# its own: they are loaded first.
CODE = """
import sys, importlib, numpy, rich.box, rich.console, rich.table, rich.text
before = set(sys.modules)
importlib.import_module(sys.argv[1])
loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(*sorted(loaded))
"""


def packages_loaded_by(module):
    done = subprocess.run([sys.executable, "-c", CODE, module], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.once
@pytest.mark.parametrize("module", MODULES)
def test_report_loads_neither_tensorflow_nor_anything_else(module):
    assert packages_loaded_by(module) <= ALLOWED


@pytest.mark.once
def test_the_check_sees_tensorflow():
    """The test above can fail: utils/distributed imports TensorFlow."""
    assert "tensorflow" in packages_loaded_by("relu_probe.utils.distributed")


def test_every_module_is_checked():
    assert {"relu_probe.report.report", "relu_probe.report.layer_report", "relu_probe.report.history"} < set(MODULES)
