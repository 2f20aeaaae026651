"""Locks that show which event files are still written to. The kernel drops them with the process, however it ends."""

import os
import weakref
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_locks: "weakref.WeakSet[Lock]" = weakref.WeakSet()


class Lock:
    """A lock on a file, held until it is released or garbage collected. Nobody waits for it: `is_held` asks.

    The lock (`flock`) belongs to the open file. One of `fcntl.lockf` would belong to the process, and end as soon as any code
    of the process that copies or reads the file closes it.

    Args:
        path: the file. If the file system has no locks, none is held.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR)  # NFS gives an exclusive lock only on a file opened for writing
        self.release = weakref.finalize(self, os.close, descriptor)
        _locks.add(self)
        _try_lock(descriptor, exclusive=True)


def is_held(path: Path) -> bool:
    """Returns whether a fit, of this or any process, holds the lock on the file; True if that cannot be known.

    Raises:
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return not _try_lock(
            descriptor, exclusive=False
        )  # shared: two processes that ask at once do not disturb each other
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, *, exclusive: bool) -> bool:
    """Returns whether the lock was free; False if there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_NB | (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH))
    except OSError:
        return False
    return True


def _release_in_child() -> None:
    """A forked worker that loads data may outlive the fit, and would hold the locks that it inherits."""
    for lock in _locks:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
