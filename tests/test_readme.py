"""Tests of the README: its Python blocks run and print the text below them; its tables name tests that exist."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", README, re.DOTALL)
(MODEL,) = (code for code, _ in BLOCKS if "model.set_weights" in code)
SABOTAGED = MODEL.replace("[-9, -9,", "[-9, 0.5,")
FAULTS = (ROOT / "tests" / "integration" / "FAULTS.md").read_text()


def output(code, directory, model=MODEL):
    """Returns what a block prints. The blocks use the model of the examples, and a probe that has watched it."""
    names = {}
    with contextlib.chdir(directory), contextlib.redirect_stdout(io.StringIO()) as out:
        exec(model, names)
        if "ReluProbe(" not in code and "probe" in code:
            exec(BLOCKS[0][0], names)
        before = len(out.getvalue())
        exec(compile(code, "README.md", "exec"), names)
    return out.getvalue()[before:]


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_a_block_prints_what_stands_below_it(index, tmp_path):
    code, printed = BLOCKS[index]
    found = output(code, tmp_path)
    if printed:
        assert found.split() == printed.split()


def test_that_test_can_fail(tmp_path):
    assert output(BLOCKS[0][0], tmp_path, SABOTAGED).split() != BLOCKS[0][1].split()


def test_the_example_of_a_test_is_the_one_that_runs():
    example = (ROOT / "tests" / "example_test_model.py").read_text()
    assert example[example.index("def test_") :] in README


def test_the_readme_stays_short_and_keeps_its_commands():
    assert len(README.splitlines()) < 300
    assert [line for line in README.splitlines() if len(line) > 200] == []
    commands = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert [command for command in commands if "relu-probe demo" in command]
    assert [command for command in commands if "-m pytest" in command]
    assert all(command.count("\n") == 1 for command in commands), "one line each"


def missing_test_files(faults):
    """Returns the files in the last column of the table of faults that do not exist; the column's header is their folder."""
    table = faults[faults.index("| fault |") :]
    header, _, *rows = ([cell.strip() for cell in row.split(" | ")] for row in table.strip().splitlines())
    folder = ROOT / header[-1].rstrip(" |")
    names = [name for *_, last in rows for name in last.rstrip(" |").split(", ") if name]
    assert len(names) > 15
    return [name for name in names if not (folder / f"{name}.py").exists()]


def test_the_table_of_faults_names_test_files_that_exist():
    assert missing_test_files(FAULTS) == []
    renamed = FAULTS.replace("| ../counting/test_concat_layers |", "| ../counting/test_rows |")
    assert missing_test_files(renamed) == ["../counting/test_rows"]  # the planted mistake
