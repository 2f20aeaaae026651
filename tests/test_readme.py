"""The README cannot drift: its Python blocks run, and print what stands below them."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", README, re.DOTALL)
SABOTAGED = BLOCKS[0][0].replace("[-9, -9,", "[-9, 0.5,")


def output(code, directory):
    """What a block prints. Those below the first use its model and data."""
    names = {}
    with contextlib.chdir(directory):
        if code not in (BLOCKS[0][0], SABOTAGED):
            with contextlib.redirect_stdout(io.StringIO()):
                exec(BLOCKS[0][0], names)
            names["y"] = names["x"]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, "README.md", "exec"), names)
    invitation = ("relu_probe: tensorboard", "  and open http")
    return "\n".join(line for line in out.getvalue().splitlines() if not line.startswith(invitation))


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_a_block_prints_what_stands_below_it(index, tmp_path):
    code, printed = BLOCKS[index]
    found = output(code, tmp_path)
    if printed:
        assert found.split() == printed.split()


def test_that_test_can_fail(tmp_path):
    assert output(SABOTAGED, tmp_path).split() != BLOCKS[0][1].split()


def test_the_example_of_a_test_file_is_the_one_that_runs():
    example = (ROOT / "tests" / "example_test_model.py").read_text()
    assert example[example.index("import numpy") :] in README


def test_the_readme_stays_short_and_keeps_its_commands():
    assert len(README.splitlines()) < 300
    commands = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert [command for command in commands if "relu-probe demo" in command]
    assert [command for command in commands if "-m pytest" in command]
    assert all(command.count("\n") == 1 for command in commands), "one line each"
