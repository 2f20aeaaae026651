"""The layout of the package: directions of imports, sizes of files, and where private names of other libraries may stand."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest
from commands import python_tool

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "relu_probe"
FILES = sorted(PACKAGE.rglob("*.py"))


# --- imports ----------------------------------------------------------------------------------------------------------


FLOORS = "a folder imports lower floors only, and no folder on its own floor"
CIRCLES = "no imports in a circle, lazy ones and those for type checkers included"
NO_TENSORFLOW = "reports need no TensorFlow"


def broken_contracts(directory):
    """The contracts of `pyproject.toml` that the copy of the package in `directory` breaks."""
    command = "from importlinter.cli import lint_imports_command as lint; lint()"
    result = python_tool([sys.executable, "-c", command, "--no-cache", "--no-logo"], directory)
    verdicts = re.findall(r"^(.*) (KEPT|BROKEN)$", result.stdout, re.MULTILINE)
    assert sorted(name for name, _ in verdicts) == sorted([FLOORS, CIRCLES, NO_TENSORFLOW]), result
    broken = {name for name, verdict in verdicts if verdict == "BROKEN"}
    assert result.returncode == bool(broken)
    return broken


@pytest.fixture
def copy(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    shutil.copytree(PACKAGE, tmp_path / "relu_probe", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_keep_all_contracts(copy):
    assert broken_contracts(copy) == set()


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("report/report.py", "from relu_probe.callbacks.relu_probe import ReluProbe", FLOORS),
        ("report/table.py", "import relu_probe.structure.weights", FLOORS),
        ("utils/layer_names.py", "def late():\n    from relu_probe.cli import main", FLOORS),
        ("counting/batch_rows.py", "def late():\n    from relu_probe.counting.counters import Counters", CIRCLES),
        ("utils/validation.py", "import tensorflow as tf", NO_TENSORFLOW),
        ("report/history.py", "from relu_probe.utils.distributed import is_chief", NO_TENSORFLOW),
    ],
)
def test_a_planted_import_breaks_a_contract(copy, file, line, broken):
    with open(copy / "relu_probe" / file, "a") as planted:
        planted.write(f"\n\n{line}\n")
    assert broken in broken_contracts(copy)


# --- files ------------------------------------------------------------------------------------------------------------


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def test_no_file_has_more_than_300_lines():
    lines = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > 300} == {}


def test_the_first_line_of_a_modules_docstring_says_what_it_is():
    """It is no question. `utils/__init__.py` is empty."""
    first = {name_of(path): (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0] for path in FILES}
    assert [name for name, line in first.items() if not line] == ["utils/__init__.py"]
    assert {name: line for name, line in first.items() if "?" in line} == {}
    assert (PACKAGE / "utils" / "__init__.py").read_text() == ""


# --- private names of other libraries ---------------------------------------------------------------------------------


KNOWS_KERAS, KNOWS_TENSORFLOW = "structure/", "utils/tensorflow_private.py"
OF_NAMEDTUPLE = {"_make", "_replace", "_asdict", "_fields"}
REFLECTION = {"getattr", "hasattr", "setattr", "delattr"}
MODULES = re.compile(r"(tf_)?keras\.?|(tf_)?keras\.src\b.*|tensorflow\.python\b.*")


def is_private(name):
    return name == "__closure__" or (re.fullmatch(r"_[A-Za-z]\w*", name) and "relu_probe" not in name)


def own_names(tree):
    """Names that the file itself defines: its methods, fields and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            yield node.attr


def is_self(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls", "sys")


def private_names(text):
    """Private names of other libraries in a source file: attributes, names given to `getattr`, module names."""
    tree = ast.parse(text)
    own = {*own_names(tree), *OF_NAMEDTUPLE}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_self(node.value) and node.attr not in own:
            yield from filter(is_private, [node.attr])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REFLECTION:
            names = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield from filter(is_private, names)
        elif (
            isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        ):
            yield from filter(is_private, [node.value.value])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            yield from [node.value] if MODULES.fullmatch(node.value) else []
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            yield from (name for name in names if MODULES.fullmatch(name) and "." in name)


def test_private_names_of_keras_and_tensorflow_stand_in_their_own_files():
    others = [path for path in FILES if not name_of(path).startswith((KNOWS_KERAS, KNOWS_TENSORFLOW))]
    found = {name_of(path): sorted(set(private_names(path.read_text()))) for path in others}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("variables = optimizer._trainable_variables", "_trainable_variables"),
        ("variables = getattr(optimizer, '_trainable_variables', [])", "_trainable_variables"),
        ("cells = getattr(function, '__closure__', None) or ()", "__closure__"),
        ("name = '_concrete_variable_creation_fn'", "_concrete_variable_creation_fn"),
        ("own = type(model).__module__.startswith(('keras.', 'tf_keras.'))", "tf_keras."),
        ("from tensorflow.python.framework import ops", "tensorflow.python.framework"),
        ("import keras.src.backend", "keras.src.backend"),
    ],
)
def test_a_private_name_is_found(line, name):
    assert name in set(private_names(line))


def test_names_of_the_package_are_not_taken_for_private_names_of_others():
    own = "class A:\n    def __init__(self): self._x = 1\n    def same(self, other): return self._y, other._x, a._replace()"
    assert list(private_names(own)) == []
    assert (
        list(private_names("frame = sys._getframe(1)\nkept = model._relu_probe\n'keras is a library', 'keras'")) == []
    )
    assert set(private_names((PACKAGE / "structure" / "keras_layers.py").read_text())) >= {"_flatten_layers", "keras."}
