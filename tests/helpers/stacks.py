"""Which Keras is under test, and how a test gets a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

ROOT = Path(__file__).parents[2]
LEGACY = not hasattr(tf.keras, "ops")  # TF_USE_LEGACY_KERAS=1: tf.keras is tf_keras
KERAS = (2,) if LEGACY else tuple(int(number) for number in tf.keras.__version__.split(".")[:2])


def environment(**more: str) -> dict[str, str]:
    """Of a child process: it finds the package and the tests' helpers, and no GPU."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", **more}


def python(code: str, *args: str, timeout: float = 120, **more: str) -> subprocess.CompletedProcess[Any]:
    """Runs `code` in a new interpreter with these environment variables; asserts nothing."""
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(
        command, env=environment(**more), capture_output=True, text=True, timeout=timeout, check=False
    )


def output(code: str, *args: str, timeout: float = 120, **more: str) -> str:
    """What `code` prints; it must end well."""
    result = python(code, *args, timeout=timeout, **more)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout
