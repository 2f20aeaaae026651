"""`relu-probe check`, the installed command: wrong arguments and files that are refused before TensorFlow is imported."""

import os
import subprocess
import sys
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from commands import refused, relu_probe

from relu_probe import LayerReport, Report, __version__
from relu_probe.cli.main import COMMANDS
from relu_probe.report.export import write_json

pytestmark = pytest.mark.once

DATA_MODULE = """
import sys

def broken():
    raise OSError("no bucket")

def leaves():
    sys.exit(0)

def fine():
    return 3

number = 3
"""


def write_bomb(path):
    """Writes a small file whose array would unpack to 32 TiB, as its headers say."""
    header = {"shape": (2**42,), "fortran_order": False, "descr": "<f8"}
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, header)
        (info,) = archive.infolist()
        info.file_size += 2**45


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("check")
    (directory / "our_data.py").write_text(DATA_MODULE)
    ZipFile(directory / "alive.keras", "w").close()
    (directory / "text.npz").write_text("no zip")
    np.savez(directory / "data.npz", x=np.ones((2, 3)))
    np.savez(directory / "names.npz", images=np.ones(3), labels=np.ones(3))
    np.savez(directory / "objects.npz", x=np.array([None, 1]))
    np.savez(directory / "complex.npz", x=np.ones((2, 3), complex))
    write_bomb(directory / "bomb.npz")
    (directory / "hdf5.keras").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    os.mkfifo(directory / "pipe.keras")
    os.mkfifo(directory / "pipe.npz")
    os.link(directory / "alive.keras", directory / "link.json")
    os.link(directory / "our_data.py", directory / "link.csv")
    (directory / "soft.json").symlink_to("data.npz")
    write_json({}, directory / "empty.json")
    (directory / "damaged.json").write_text('{"layers": \x1b[2J')
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
        (
            ["alive.keras", "--data", "data.npz", "--json", "link.json"],
            "link.json is given twice; expected a different",
        ),
        (
            ["alive.keras", "--data", "data.npz", "--json", "soft.json"],
            "soft.json is given twice; expected a different",
        ),
        (
            ["alive.keras", "--data", "our_data:fine", "--csv", "link.csv"],
            "link.csv is given twice; expected a different",
        ),
        (["alive.keras", "--data", "our_data:fine", "--csv", "our_data.py"], "our_data.py is given twice; expected a"),
        (
            ["alive.keras", "--data", "data.npz", "--json", "pipe.npz"],
            "pipe.npz is no regular file; expected the path of",
        ),
        (
            ["alive.keras", "--data", "data.npz", "--json", "/dev/null"],
            "/dev/null is no regular file; expected the path",
        ),
        (["pipe.keras", "--data", "data.npz"], "pipe.keras is no regular file; expected a .keras or .h5 file."),
        (
            ["alive.keras", "--data", "pipe.npz"],
            "--data pipe.npz is no regular file; expected an .npz file with x and y",
        ),
        (
            ["hdf5.keras", "--data", "data.npz", "--trust-model"],
            "hdf5.keras is no zip file, as a .keras file must be. Save it with model.save('model.keras'); give an HDF5 file "
            "its own ending, .h5.\n",
        ),
        (
            ["alive.keras", "--data", "complex.npz"],
            "--data complex.npz: x.npy holds complex numbers, of which Keras would drop the imaginary part; expected real",
        ),
        (
            ["alive.keras", "--data", "bomb.npz"],
            "--data bomb.npz: its compressed arrays unpack to 35,184.4 GB, and ",
        ),
        (
            ["alive.keras", "--data", "data.npz", "--tolerance", "0.1"],
            "--tolerance without --baseline has no effect; expected both. Pass --baseline report.json.",
        ),
        (
            ["alive.keras", "--data", "data.npz", "--baseline", "none.json"],
            "none.json: no such file; expected a report that relu-probe check --json wrote.",
        ),
        (
            ["alive.keras", "--data", "data.npz", "--baseline", "empty.json"],
            "empty.json holds no report: found 'no schema'; expected what Report.to_dict() gives",
        ),
        (
            ["alive.keras", "--data", "data.npz", "--baseline", "damaged.json"],
            "damaged.json holds no report: Expecting",
        ),
        (
            ["\x1b[2J::error::.keras", "--data", "d"],
            "could not measure: \\x1b[2J:\\x3aerror:\\x3a.keras: no such file; exp",
        ),
        (["m", "--data", "d", "--batch-size", "\x1b[2J"], r"argument --batch-size: found '\x1b[2J'; expected a whole"),
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


def test_nothing_was_overwritten(files):
    """By any of the outputs that were refused."""
    assert ZipFile(files / "alive.keras").namelist() == []
    assert (files / "our_data.py").read_text() == DATA_MODULE
    with np.load(files / "data.npz") as data:
        assert data["x"].shape == (2, 3)


@pytest.mark.parametrize("closed", ["stdout", "stderr", "both"])
def test_closed_streams(files, closed):
    """The exit code tells the result, and nothing is written to files that got the numbers of the streams."""
    close = {"stdout": ">&-", "stderr": "2>&-", "both": ">&- 2>&- <&-"}[closed]
    command = f"{sys.executable} -m relu_probe check none.keras --data data.npz {close}"
    result = subprocess.run(command, shell=True, cwd=files, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert ("no such file" in result.stderr) == (closed == "stdout")
    command = f"{sys.executable} -m relu_probe diff old.json new.json {close}"
    for name in ("old", "new"):
        write_json(Report({"a": LayerReport(2, 2, active=[1])}).to_dict(), files / f"{name}.json")
    result = subprocess.run(command, shell=True, cwd=files, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_output_that_nobody_reads(files):
    for sink in ("| true", "> /dev/full"):
        command = f"{sys.executable} -m relu_probe --help {sink}; echo ${{PIPESTATUS[0]}} >&2"
        result = subprocess.run(["bash", "-c", command], cwd=files, capture_output=True, text=True, check=False)
        assert "Traceback" not in result.stderr


def test_help_has_examples(files):
    result = relu_probe("check", "--help", cwd=files)
    assert result.returncode == 0
    assert "  relu-probe check model.keras --data validation.npz\n" in result.stdout
    assert "exit code: 0 alive, 1 a limit is exceeded, 2 could not measure" in result.stdout
    assert "Keras older than 3.15.1" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_is_80_columns_wide(files, arguments):
    result = relu_probe(*arguments, cwd=files)  # on a terminal of 120 columns
    assert (result.returncode, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stdout.startswith("usage: relu-probe")


def test_the_version(files):
    assert relu_probe("--version", cwd=files).stdout == f"relu-probe {__version__}\n"
