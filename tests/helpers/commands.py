"""The installed command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path


def relu_probe(*arguments, cwd, **options):
    """Runs `relu-probe`: the script beside this Python where the package is installed, else the module."""
    script = Path(sys.executable).with_name("relu-probe")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "relu_probe"]
    return python_tool([*command, *map(str, arguments)], cwd, **options)


def refused(directory, text, *arguments):
    """`relu-probe check` with exit code 2, and one line that says why."""
    result = relu_probe("check", *arguments, cwd=directory)
    assert (result.returncode, result.stdout) == (2, ""), result
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert text in result.stderr, result.stderr


def pytest_in(directory, *arguments):
    """Without other people's plugins that take a second to import."""
    return python_tool([sys.executable, "-m", "pytest", "-p", "no:nbmake", *map(str, arguments)], directory)


def python_tool(command, cwd, **options):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["COLUMNS"] = "120"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(command, cwd=cwd, env=environment, text=True, check=False, **pipes)
