"""The README cannot drift: its Python blocks run, and print what stands below them."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", README, re.DOTALL)


def output(code, directory):
    with contextlib.chdir(directory), contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "README.md", "exec"), {})
    return "\n".join(line for line in out.getvalue().splitlines() if not line.startswith("relu_probe: tensorboard"))


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_a_block_prints_what_stands_below_it(index, tmp_path):
    code, printed = BLOCKS[index]
    found = output(code, tmp_path)
    if printed:
        assert found.split() == printed.split()


def test_that_test_can_fail(tmp_path):
    code, printed = BLOCKS[0]
    assert output(code.replace("[-9, -9,", "[-9, 0.5,"), tmp_path).split() != printed.split()


def test_the_readme_stays_short_and_keeps_its_commands():
    assert len(README.splitlines()) < 300
    commands = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert [command for command in commands if "relu-probe demo" in command]
    assert [command for command in commands if "-m pytest" in command]
    assert all(command.count("\n") == 1 for command in commands), "one line each"
