"""What did a killed fit write that the resumed one has written again? It is taken out of TensorBoard's sight."""

import os
import shutil
import struct
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tensorboard.compat.proto.event_pb2 import Event

SUFFIX = ".relu_probe.v2"  # of our event files: no others are touched


class _Record(NamedTuple):
    start: int
    length: int  # of the event; 8 + 4 bytes stand before it, 4 behind

    def step(self, file: BinaryIO) -> int:
        file.seek(self.start + 12)
        return int(Event.FromString(file.read(self.length)).step)


def supersede(files: Iterable[Path], step: int) -> None:
    """Cuts off what event files of fits before hold of `step` and later steps.

    TensorBoard leaves it out itself, told by the SessionLog.START of the resumed fit; `EventAccumulator`, which people
    read event files with, does so with the summaries of TensorFlow 1 only [TensorBoard 2.16 to 2.21]. The whole file is
    kept under a name that TensorBoard does not read. Where the file system cannot do that, all stays as it is.
    """
    for path in files:
        try:
            if path.name.endswith(SUFFIX) and (kept := _bytes_before(path, step)) < path.stat().st_size:
                _cut(path, kept)
        except OSError:
            continue


def _bytes_before(path: Path, step: int) -> int:
    """The steps of one fit never fall, so what is to go is the end of the file. The first record is its version."""
    size = path.stat().st_size
    with path.open("rb") as file:
        records = _records(file, size)[1:]
        first = bisect_left(records, step, key=lambda record: record.step(file))
    return records[first].start if first < len(records) else size


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
