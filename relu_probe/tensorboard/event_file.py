"""The event file of one fit: opened, written, reopened after somebody removed it, and closed."""

import secrets
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from relu_probe.tensorboard.file_lock import Lock
from relu_probe.tensorboard.resume import SUFFIX, interrupted_files, shorten_files
from relu_probe.utils.callback_list import fit_under_way, is_under_way
from relu_probe.utils.tensorflow_private import import_event

_open_files: "weakref.WeakSet[EventFile]" = weakref.WeakSet()


class EventFile:
    """The events of one fit, in a run directory that earlier fits may have written to.

    Args:
        directory: the run directory, made when the file is opened.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._writer: Any = None
        self._path: Path | None = None  # None if the file system does not show the file: remote ones may take a while
        self._lock: Lock | None = None
        self._earlier_files: set[Path] = set()
        self._has_events = False
        self._fit: Any = (
            None  # a weak reference to the list of callbacks of the fit under way; None in a loop of the user's
        )

    def open(self) -> None:
        """Makes the file.

        Raises:
            tf.errors.OpError: the file cannot be written.
        """
        self._earlier_files = self._files()
        fit = fit_under_way()
        self._fit = None if fit is None else weakref.ref(fit)
        _open_files.add(self)
        suffix = f".{secrets.token_hex(4)}{SUFFIX}"  # to find the file by: TensorFlow does not tell its name
        self._writer = tf.summary.create_file_writer(self.directory, filename_suffix=suffix)
        self._writer.flush()
        self._path = next((path for path in self._files() if path.name.endswith(suffix)), None)
        if self._path is not None:
            with suppress(OSError):
                self._lock = Lock(self._path)

    @contextmanager
    def recording(self, step: int) -> Iterator[None]:
        """Writes the summaries of the block to the file, and flushes it. `record_if` of other callbacks has no effect.

        If the file was removed, a new one is made: TensorFlow would go on writing to the removed file, which nobody can read.
        """
        if self._writer is None or (self._path is not None and not self._path.exists()):
            self.close()
            self.open()
        before = self._size()
        # Not as a Python number: TensorFlow keeps a tensor of each that it ever saw, about 700 bytes an epoch.
        with self._writer.as_default(step=tf.constant(np.array(step, np.int64))), tf.summary.record_if(True):
            resumed = [] if self._has_events else self._interrupted_files(step)
            # A START tells TensorBoard to drop the interrupted fit's events from this step on. It takes the first START that
            # it sees for the beginning of the run, and drops nothing: so START is written twice.
            for _ in resumed[:1] * 2:
                self._write_session_log(SessionLog.START, step)
            self._has_events = True
            yield
        self._writer.flush()
        # TensorFlow ignores that a large event could not be written; only what it has in its buffer makes a flush fail.
        if before is not None and self._size() == before:
            raise tf.errors.ResourceExhaustedError(
                None, None, f"{self._path}: nothing could be written; is the disk full?"
            )
        shorten_files(resumed, step)  # only now that the step is written again

    def _size(self) -> int | None:
        """Returns the bytes of the file; None if it is not on a local disk."""
        return self._path.stat().st_size if self._path is not None and self._path.exists() else None

    def end(self, step: int) -> None:
        """Records that the fit has ended, so that no later fit resumes it."""
        with self.recording(step):
            self._write_session_log(SessionLog.STOP, step)

    def _write_session_log(self, status: Any, step: int) -> None:
        event = Event(step=step, wall_time=time.time(), session_log=SessionLog(status=status))
        import_event(self._writer, event)

    def _interrupted_files(self, step: int) -> list[Path]:
        """Returns the files of interrupted fits that have events of `step` or later steps."""
        for file in _open_files:
            if not file.is_active():
                file.unlock()
        return interrupted_files(self._earlier_files, step)

    def is_active(self) -> bool:
        """Returns whether the training is still running; False if an interrupt ended a fit before the file was closed."""
        if self._writer is None or self._fit is None:
            return self._writer is not None
        fit = self._fit()
        return fit is not None and is_under_way(fit)

    def unlock(self) -> None:
        """Releases the lock on the file."""
        if self._lock is not None:
            self._lock.release()

    def close(self) -> None:
        """Closes the file. Errors are ignored: all events are flushed already, and a full disk was reported then."""
        writer, self._writer = self._writer, None
        self.unlock()
        if writer is not None:
            try:
                writer.close()
            except tf.errors.OpError:
                del writer

    def _files(self) -> set[Path]:
        return {path.resolve() for path in Path(self.directory).glob("events.out.tfevents.*")}
