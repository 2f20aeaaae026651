"""Where do the events go? Into an event file of the run directory, which may be full, or be taken away at any time."""

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
from relu_probe.tensorboard.resume import SUFFIX, supersede, unended
from relu_probe.utils.callback_list import fit_under_way, is_under_way

_open: "weakref.WeakSet[EventFile]" = weakref.WeakSet()


class EventFile:
    """The events of one fit in the run directory, which fits before it may have written to.

    Args:
        directory: of the run; made when the file is opened.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._writer: Any = None
        self._path: Path | None = None  # None where the file system does not show it, as remote ones do not at once
        self._lock: Lock | None = None
        self._before: set[Path] = set()  # files of other fits
        self._begun = False
        self._fit: Any = lambda: None  # whose file it is

    def open(self) -> None:
        """Makes the file.

        Raises:
            tf.errors.OpError: it cannot be written.
        """
        self._before = self._files()
        if (fit := fit_under_way()) is not None:
            self._fit = weakref.ref(fit)
        _open.add(self)
        suffix = f".{secrets.token_hex(4)}{SUFFIX}"  # TensorFlow does not tell how it called the file
        self._writer = tf.summary.create_file_writer(self.directory, filename_suffix=suffix)
        self._writer.flush()
        self._path = next((path for path in self._files() if path.name.endswith(suffix)), None)
        if self._path is not None:
            with suppress(OSError):
                self._lock = Lock(self._path)

    @contextmanager
    def recording(self, step: int) -> Iterator[None]:
        """What is written inside is flushed. Another callback's `record_if` does not swallow it.

        A file that was removed is made anew: TensorFlow would go on writing to where nobody reads.
        """
        if self._writer is None or (self._path is not None and not self._path.exists()):
            self.close()
            self.open()
        # Not the Python number: TensorFlow keeps a tensor of each that it ever saw, about 700 bytes an epoch.
        with self._writer.as_default(step=tf.constant(np.array(step, np.int64))), tf.summary.record_if(True):
            again = [] if self._begun else self._killed(step)
            # TensorBoard is told that what the killed fit wrote of this step is void: twice, since the first start that it
            # sees is the beginning to it.
            for _ in again[:1] * 2:
                self._log(SessionLog.START, step)
            self._begun = True
            yield
        self._writer.flush()
        supersede(again, step)  # now that it is written again

    def end(self, step: int) -> None:
        """The fit came to its end: no later one takes it up again."""
        with self.recording(step):
            self._log(SessionLog.STOP, step)

    def _log(self, status: Any, step: int) -> None:
        event = Event(step=step, wall_time=time.time(), session_log=SessionLog(status=status))
        tf.raw_ops.ImportEvent(writer=self._writer._resource, event=event.SerializeToString())

    def _killed(self, step: int) -> list[Path]:
        """The files of fits that were killed, and that hold `step` or later ones."""
        for file in _open:
            if not file.runs():
                file.unlock()
        return unended(self._before, step)

    def runs(self) -> bool:
        """Whether its fit is under way: not where an interrupt ended it before it could close the file."""
        fit = self._fit()
        return self._writer is not None and fit is not None and is_under_way(fit)

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def close(self) -> None:
        """Never fails: what was recorded is flushed, and a full disk has been told of."""
        writer, self._writer = self._writer, None
        self.unlock()
        if writer is not None:
            try:
                writer.close()
            except tf.errors.OpError:
                del writer

    def _files(self) -> set[Path]:
        return {path.resolve() for path in Path(self.directory).glob("events.out.tfevents.*")}
