"""Checks of arguments. Each message says what was found, what is expected, and the fix."""

import os
from pathlib import Path
from typing import Any

import numpy as np


def check_arguments(
    *, log_dir: Any, data: Any, freq: Any, name: Any, keep: Any, verbose: Any, at_start: Any, **switches: Any
) -> None:
    """Checks the arguments of a `ReluProbe`.

    Raises:
        ValueError, TypeError: one of them is wrong.
    """
    _check_freq(freq)
    check_run(log_dir, name)
    _check_keep(keep)
    for switch, value in {"at_start": at_start, **switches}.items():
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{switch} is {value!r:.60}; expected True or False.")
    _check_at_start(at_start, data)
    if verbose not in (None, 0, 1):
        raise ValueError(f"verbose is {verbose!r:.60}; expected 0, 1, or None for what fit(verbose=) says.")


def check_run(log_dir: Any, name: Any) -> None:
    """Checks where event files go.

    Raises:
        ValueError, TypeError: `log_dir` is no directory, or `name` no directory's name.
    """
    _check_name(name)
    _check_log_dir(log_dir)


def check_positive(name: str, value: Any) -> int:
    """Returns the argument `name` as an int.

    Raises:
        ValueError: it is no whole number >= 1.
    """
    if not is_whole(value):
        raise ValueError(f"{name} is {value!r}; expected a whole number >= 1.")
    return int(value)


def check_confidence(confidence: Any) -> float:
    """Returns the argument `confidence` as a float.

    Raises:
        ValueError: it is no number between 0 and 1, both excluded.
    """
    is_number = isinstance(confidence, (int, float, np.number)) and not isinstance(confidence, bool)
    if not is_number or not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; expected a number between 0 and 1, such as 0.95.")
    return float(confidence)


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether `value` is an integer, not a bool, and at least `least`."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def check_fraction(name: str, value: Any) -> None:
    """Checks a fraction from 0 to 1, both included.

    Raises:
        ValueError: it is no number, or outside [0, 1].
    """
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; expected a fraction from 0 to 1, for example 0.05 for 5 %.")


def check_names(name: str, names: list[str]) -> None:
    """Checks that the name of a probe is unique among the names of all probes of the fit.

    Raises:
        ValueError: two probes have it. They would write the same keys to `logs`, and cut each other's event files.
    """
    if (same := names.count(name)) > 1:
        raise ValueError(
            f"{same} probes of this fit have the name {name!r}; expected a different one for each, for its keys in logs "
            'and its run directory. Pass name=..., such as ReluProbe(..., name="held_out").'
        )


def _check_at_start(at_start: Any, data: Any) -> None:
    if at_start and data is None:
        raise ValueError(
            "at_start=True and data=None: before the first step there is no training batch to count; expected data to "
            "measure on. Pass data=(x, y)."
        )


def _check_keep(keep: Any) -> None:
    if keep is not None and (not is_whole(keep)):
        raise ValueError(
            f"keep is {keep!r}; expected a whole number of reports >= 1, or None for all. keep=100 keeps the newest 100."
        )


def _check_freq(freq: Any) -> None:
    if not is_whole(freq):
        raise ValueError(f"freq is {freq!r}; expected a whole number of epochs >= 1. freq=1 measures every epoch.")


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name or name in (".", "..") or any(c in name for c in "/\\\0"):
        raise ValueError(f"name is {name!r}; expected a directory's name without slashes, such as 'relu_probe'.")


def _check_log_dir(log_dir: Any) -> None:
    if log_dir is None:
        return
    if not isinstance(log_dir, (str, os.PathLike)):
        raise TypeError(
            f"log_dir is {log_dir!r:.60} ({type(log_dir).__name__}); expected a path. Data goes into data=."
        )
    if "\0" in os.fspath(log_dir):
        raise ValueError(f"log_dir is {log_dir!r}; expected a path with no null character in it.")
    existing = next((path for path in (Path(log_dir), *Path(log_dir).parents) if os.path.exists(path)), Path())
    if not existing.is_dir():
        raise ValueError(
            f"log_dir {os.fspath(log_dir)!r}: {str(existing)!r} is a file; expected a directory, or a path that does not "
            "exist yet."
        )
