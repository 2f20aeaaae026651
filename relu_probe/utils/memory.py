"""The memory that this process may still use."""

import os
import re
from contextlib import suppress
from pathlib import Path


def available_memory() -> int | None:
    """Returns the number of bytes that are free in the machine, at most the limit of the container; None if unknown.

    >>> available_memory() > 0
    True
    """
    found = [_free_in_machine(), _limit_of_container()]
    return min((size for size in found if size is not None), default=None)


def _free_in_machine() -> int | None:
    with suppress(OSError):  # Linux: includes what the kernel would drop from its caches
        if match := re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE):
            return int(match[1]) * 1024
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _limit_of_container() -> int | None:
    """The limit of the control group (version 2, or 1). What is used of it is unknown: it includes caches."""
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" for no limit
            return int(Path("/sys/fs/cgroup", limit).read_text())
    return None
