"""What did a killed fit write that the resumed one has written again? It is taken out of TensorBoard's sight.

A killed fit is known by what it could not do any more: write the end of its file, and hold the lock on it. What stands
before the end of another fit was taken up again by that one, or is of a training before it.
"""

import os
import shutil
import struct
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from relu_probe.tensorboard.file_lock import is_held

SUFFIX = ".relu_probe.v2"  # of our event files: no others are touched


class _Record(NamedTuple):
    start: int
    length: int  # of the event; 8 + 4 bytes stand before it, 4 behind

    def event(self, file: BinaryIO) -> Any:
        file.seek(self.start + 12)
        return Event.FromString(file.read(self.length))


def unended(files: Iterable[Path], step: int) -> list[Path]:
    """Those of our event files whose fit did not come to its end, nor runs, and that hold `step` or later ones."""
    newest_end, open_ended = 0, []
    for path in (path for path in files if path.name.endswith(SUFFIX)):
        try:
            if _ended(path):
                newest_end = max(newest_end, path.stat().st_mtime_ns)
            # The lock is asked for last: a new file, which is not locked yet, has no steps.
            elif _bytes_before(path, step) < path.stat().st_size and not is_held(path):
                open_ended.append((path, path.stat().st_mtime_ns))
        except OSError:
            continue
    return [path for path, written in open_ended if written > newest_end]


def supersede(files: Iterable[Path], step: int) -> None:
    """Cuts off what these event files hold of `step` and later steps.

    TensorBoard leaves it out itself, told by the SessionLog.START of the resumed fit; `EventAccumulator`, which people
    read event files with, does so with the summaries of TensorFlow 1 only [TensorBoard 2.16 to 2.21]. The whole file is
    kept under a name that TensorBoard does not read. Where the file system cannot do that, all stays as it is.
    """
    for path in files:
        try:
            _cut(path, _bytes_before(path, step))
        except OSError:
            continue


def _bytes_before(path: Path, step: int) -> int:
    """The steps of one fit never fall, so what is to go is the end of the file. The first record is its version."""
    size = path.stat().st_size
    with path.open("rb") as file:
        records = _records(file, size)[1:]
        first = bisect_left(records, step, key=lambda record: record.event(file).step)
    return records[first].start if first < len(records) else size


def _ended(path: Path) -> bool:
    with path.open("rb") as file:
        records = _records(file, path.stat().st_size)
        return bool(records) and records[-1].event(file).session_log.status == SessionLog.STOP


def _records(file: BinaryIO, size: int) -> list[_Record]:
    """Without a last one that was half written."""
    records, start = [], 0
    while len(head := file.read(12)) == 12:
        record = _Record(start, struct.unpack("<Q", head[:8])[0])
        start += record.length + 16
        if start > size:
            break
        records.append(record)
        file.seek(start)
    return records


def _cut(path: Path, size: int) -> None:
    """At no moment is there no file of this name: this process, too, may be killed."""
    whole = path.with_name(path.name.replace("tfevents", "superseded"))
    short = whole.with_suffix(".part")
    if not whole.exists():  # cut a second time: the first copy has more
        os.link(path, whole)
    shutil.copyfile(path, short)
    os.truncate(short, size)
    os.replace(short, path)
