"""Where do the events go? Into an event file of the run directory, which may be full, or be taken away at any time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from relu_probe.superseded import SUFFIX, supersede


class EventFile:
    """The events of one fit in the run directory, which fits before it may have written to.

    Args:
        directory: of the run; made when the file is opened.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._writer: Any = None
        self._path: Path | None = None  # None where the file system does not show it, as remote ones do not at once
        self._before: set[Path] = set()  # files of other fits
        self._begun = False

    def open(self) -> None:
        """Makes the file.

        Raises:
            tf.errors.OpError: it cannot be written.
        """
        before = self._files()
        self._writer = tf.summary.create_file_writer(self.directory, filename_suffix=SUFFIX)
        self._writer.flush()
        self._path = next(iter(self._files() - before), None)
        self._before = before

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
            if first := not self._begun:
                self._begin(step)
            yield
        self._writer.flush()
        if first:
            supersede(self._before, step)  # now that it is written again

    def _begin(self, step: int) -> None:
        """Tells TensorBoard that a restarted training takes over here: what a killed one wrote of this step is void."""
        start = SessionLog(status=SessionLog.START)
        event = Event(step=step, wall_time=time.time(), session_log=start)
        tf.raw_ops.ImportEvent(writer=self._writer._resource, event=event.SerializeToString())
        self._begun = True

    def close(self) -> None:
        """Never fails: what was recorded is flushed, and a full disk has been told of."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except tf.errors.OpError:
                del writer

    def _files(self) -> set[Path]:
        return set(Path(self.directory).glob("events.out.tfevents.*"))
