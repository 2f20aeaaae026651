"""Is this file still written to? Its writer holds a lock on it, which the kernel drops with the process, however it ends."""

import os
import weakref
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_locks: "weakref.WeakSet[Lock]" = weakref.WeakSet()


class Lock:
    """On a file, until it is released or nobody refers to it any more. Nothing waits for it: `is_held` asks.

    It belongs to the opened file. One of `fcntl.lockf` would belong to the process, and be gone as soon as anybody in it,
    who copies or reads the file, closes that.

    Args:
        path: of the file. Where the file system has no locks, none is held.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        opened = os.open(path, os.O_RDWR)  # not for reading only: NFS locks for writers what is open for writing
        self.release = weakref.finalize(self, os.close, opened)
        _locks.add(self)
        _lock(opened, exclusive=True)


def is_held(path: Path) -> bool:
    """Whether another fit, of this or any process, holds the lock; True where that cannot be known.

    Raises:
        OSError: the file cannot be opened.
    """
    opened = os.open(path, os.O_RDONLY)
    try:
        return not _lock(opened, exclusive=False)  # shared: two that ask at once are no writers to each other
    finally:
        os.close(opened)


def _lock(opened: int, *, exclusive: bool) -> bool:
    """Whether it could be had: not where another holds it, nor where there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(opened, fcntl.LOCK_NB | (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH))
    except OSError:
        return False
    return True


def _leave_to_the_parent() -> None:
    """A forked worker that loads data may outlive the fit, and holds what it inherits."""
    for lock in _locks:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
