"""Report files that a command reads, and checks of the files that it will write."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from relu_probe.report.report import Report
from relu_probe.utils.foreign_text import shown

T = TypeVar("T")


def read_report(path: str) -> Report:
    """The report that `--json` wrote.

    Raises:
        ValueError: there is no such file, or it holds no report.
    """
    return _read(path, _single)


def read_reports(path: str) -> list[Report]:
    """The reports of a file that holds one report, or a list of them.

    Raises:
        ValueError: there is no such file, or it holds no report.
    """
    return _read(path, _listed)


def _single(values: Any) -> Report:
    if isinstance(values, list):
        raise ValueError(f"found a list of {len(values):,}; expected a single one (relu-probe show takes a list)")
    return Report.from_dict(values)


def _listed(values: Any) -> list[Report]:
    if values == []:
        raise ValueError("the list is empty.")
    return [Report.from_dict(one) for one in (values if isinstance(values, list) else [values])]


def _read(path: str, parsed: Callable[[Any], T]) -> T:
    if not os.path.isfile(path):
        what = "is no regular file" if os.path.exists(path) else "no such file"
        raise ValueError(f"{path}: {what}; expected a report that relu-probe check --json wrote.")
    try:
        with open(path, encoding="utf-8") as file:
            return parsed(json.load(file))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} holds no text; expected a file that relu-probe check --json wrote.") from error
    except (ValueError, AttributeError, TypeError, OSError, RecursionError) as error:
        raise ValueError(
            f"{path} holds no report: {shown(error, 300).rstrip('.')}. Expected a file that relu-probe check --json wrote."
        ) from error


def check_outputs(paths: Sequence[str]) -> None:
    """Checks that files can be written, before the work whose results they get.

    Raises:
        ValueError: one of them cannot be written, or two are the same file.
    """
    for number, path in enumerate(paths):
        directory = os.path.dirname(path) or "."
        if not path or os.path.isdir(path) or not os.path.isdir(directory) or not os.access(directory, os.W_OK):
            raise ValueError(f"{path or repr(path)} cannot be written; expected a file in a directory that exists.")
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe or device: the new file would take its place
            raise ValueError(f"{path} is no regular file; expected the path of a file.")
        check_distinct(path, paths[:number])


def check_distinct(path: str, others: Sequence[str]) -> None:
    """Checks that an output is none of these files, under any name.

    Raises:
        ValueError: it is one of them.
    """
    if any(_is_same_file(path, other) for other in others):
        raise ValueError(f"{path} is given twice; expected a different file for each. Nothing was overwritten.")


def _is_same_file(a: str, b: str) -> bool:
    if os.path.exists(a) and os.path.exists(b):
        return os.path.samefile(a, b)
    return os.path.realpath(a) == os.path.realpath(b)
