"""Standard output and standard error of the commands: safe to write to even when closed, and rid of TensorFlow's messages."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.text import Text


def prepare_streams() -> None:
    """Opens standard streams that the caller closed, and lets characters that the terminal lacks be shown escaped.

    A file that is opened later would otherwise get the number 2, and TensorFlow would write its messages into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # stays open, as the standard streams do
        with suppress(AttributeError):  # a stream of somebody who calls main()
            getattr(sys, name).reconfigure(errors="backslashreplace")


def say(text: str, style: str = "") -> None:
    """Writes lines to stdout; on a terminal in the colour `style`, such as "green"."""
    _write(sys.stdout, text, style)


def complain(text: str) -> None:
    """Writes lines to stderr; on a terminal in red."""
    _write(sys.stderr, text, "red")


def _write(stream: Any, text: str, style: str) -> None:
    try:
        if style and stream.isatty():
            Console(file=stream, highlight=False).print(Text(text, style), soft_wrap=True)
        else:
            print(text, file=stream, flush=True)
    except (OSError, ValueError):  # nobody reads it: the exit code still tells the result
        with suppress(OSError, ValueError), open(os.devnull, "w") as null:
            os.dup2(null.fileno(), stream.fileno())  # what is left in the buffer must not fail at exit


@contextmanager
def silenced() -> Iterator[None]:
    """Silences TensorFlow's C++ code, loggers and warnings, and lets Python code still write to `sys.stderr`.

    TensorFlow 2.21 writes to file descriptor 2 while it is imported, whatever TF_CPP_MIN_LOG_LEVEL says.
    """
    stderr, descriptor, level = sys.stderr, os.dup(2), logging.root.manager.disable
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        open_again = os.fdopen(os.dup(descriptor), "w", buffering=1, errors="backslashreplace")
        with open_again as sys.stderr, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            yield
    finally:
        logging.disable(level)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        sys.stderr = stderr
