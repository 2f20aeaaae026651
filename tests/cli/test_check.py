"""`relu-probe check`, the installed command: wrong arguments and files that are refused before TensorFlow is imported."""

import numpy as np
import pytest
from commands import refused, relu_probe

pytestmark = pytest.mark.once

DATA_MODULE = """
import sys

def broken():
    raise OSError("no bucket")

def leaves():
    sys.exit(0)

number = 3
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("check")
    (directory / "our_data.py").write_text(DATA_MODULE)
    (directory / "alive.keras").write_text("never read")
    (directory / "text.npz").write_text("no zip")
    np.savez(directory / "data.npz", x=np.ones((2, 3)))
    np.savez(directory / "names.npz", images=np.ones(3), labels=np.ones(3))
    np.savez(directory / "objects.npz", x=np.array([None, 1]))
    return directory


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "relu-probe check: the following arguments are required: MODEL, --data; see relu-probe check --help\n"),
        (
            ["m", "--data", "d", "--max-dead", "2"],
            "argument --max-dead: found '2'; expected a fraction from 0 to 1; see",
        ),
        (
            ["m", "--data", "d", "--max-zero-gradient", "x"],
            "--max-zero-gradient: found 'x'; expected a fraction from 0",
        ),
        (
            ["m", "--data", "d", "--batch-size", "0"],
            "argument --batch-size: found '0'; expected a whole number >= 1; see",
        ),
        (["none.keras", "--data", "data.npz"], "none.keras: no such file; expected a .keras or .h5 file."),
        (
            ["our_data.py", "--data", "data.npz"],
            "our_data.py is not a Keras model; expected a .keras or .h5 file. Save it",
        ),
        (
            ["alive.keras", "--data", "none.npz"],
            "--data none.npz: no such file; expected an .npz file with x and y, or",
        ),
        (["alive.keras", "--data", "x.csv"], "--data x.csv: expected an .npz file with x and y, or module:function."),
        (
            ["alive.keras", "--data", "text.npz"],
            "--data text.npz: it is not an .npz file (File is not a zip file); expected",
        ),
        (
            ["alive.keras", "--data", "names.npz"],
            "--data names.npz: it holds images, labels; expected x and, for gradients, y. Write it with np.savez(file, x=x",
        ),
        (["alive.keras", "--data", "objects.npz"], "--data objects.npz: x.npy holds Python objects; expected numbers."),
        (
            ["alive.keras", "--data", "no_module:f"],
            "--data no_module:f cannot be imported: ModuleNotFoundError: No module",
        ),
        (
            ["alive.keras", "--data", "data.npz", "--json", "no/where.json"],
            "no/where.json cannot be written; expected a file in a directory that exists.\n",
        ),
        (
            ["alive.keras", "--data", "data.npz", "--csv", "."],
            ". cannot be written; expected a file in a directory that",
        ),
        (
            ["alive.keras", "--data", "data.npz", "--json", ""],
            "'' cannot be written; expected a file in a directory that",
        ),
        (
            ["alive.keras", "--data", "data.npz", "--json", "./alive.keras"],
            "./alive.keras is given twice; expected a different file for each. Nothing was overwritten.",
        ),
        (
            ["alive.keras", "--data", "data.npz", "--json", "a.json", "--csv", "a.json"],
            "a.json is given twice; expected a different file for each. Nothing was overwritten.",
        ),
    ],
)
def test_what_is_refused_before_tensorflow_is_imported(files, arguments, text):
    refused(files, text, *arguments)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            "our_data:nothing",
            "--data our_data:nothing cannot be imported: AttributeError: module 'our_data' has no attr",
        ),
        ("our_data:number", "--data our_data:number is 3; expected a function that returns a dataset."),
        ("our_data:broken", "--data our_data:broken raised OSError: no bucket"),
        ("our_data:leaves", "could not measure: SystemExit: 0"),
    ],
)
def test_data_functions_that_fail(files, data, text):
    refused(files, text, "alive.keras", "--data", data)


def test_help_has_examples(files):
    result = relu_probe("check", "--help", cwd=files)
    assert result.returncode == 0
    assert "  relu-probe check model.keras --data validation.npz\n" in result.stdout
    assert "exit code: 0 alive, 1 a limit is exceeded, 2 could not measure" in result.stdout
