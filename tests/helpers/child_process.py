"""Python in a child process that finds the package and the test helpers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """Returns the environment variables of a child process, which sees no GPU."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", **more}


def python(code: str, *args: str, timeout: float = 120, **more: str) -> subprocess.CompletedProcess[Any]:
    """Runs `code` in a new interpreter with the environment variables `more`. The exit code is not checked."""
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(
        command, env=environment(**more), capture_output=True, text=True, timeout=timeout, check=False
    )


def output(code: str, *args: str, timeout: float = 120, **more: str) -> str:
    """Returns what `code` prints in a new interpreter, which must exit with code 0."""
    result = python(code, *args, timeout=timeout, **more)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout
