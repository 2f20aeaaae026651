"""The command `relu-probe`, and pytest, in a child process."""

import os
import re
import subprocess
import sys
from pathlib import Path


def relu_probe(*arguments, cwd, **options):
    """Runs the installed script `relu-probe`, or the module if the package is not installed."""
    script = Path(sys.executable).with_name("relu-probe")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "relu_probe"]
    return python_tool([*command, *map(str, arguments)], cwd, **options)


def options_in_help(command, cwd):
    """Returns the options of a command, apart from --help."""
    text = relu_probe(command, "--help", cwd=cwd).stdout
    return set(re.findall(r"^  (?:-\w(?: [A-Z]+)?, )?(--[\w-]+)", text, re.MULTILINE)) - {"--help"}


def refused(directory, text, *arguments):
    """`relu-probe check` exits with code 2 and prints one line, which contains `text`."""
    result = relu_probe("check", *arguments, cwd=directory)
    assert (result.returncode, result.stdout) == (2, ""), result
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert text in result.stderr, result.stderr


def pytest_in(directory, *arguments):
    """Runs pytest in `directory`, without a plugin that takes a second to import."""
    return python_tool([sys.executable, "-m", "pytest", "-p", "no:nbmake", *map(str, arguments)], directory)


def python_tool(command, cwd, **options):
    """Runs a command whose output is 120 columns wide."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["COLUMNS"] = "120"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(command, cwd=cwd, env=environment, text=True, check=False, **pipes)
