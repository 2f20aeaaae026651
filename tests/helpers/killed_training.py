"""A training that is killed again and again, and each time resumed by `BackupAndRestore`.

TensorFlow is imported once. Each run of the training is a forked process, which SIGKILL ends at a chosen moment.
"""

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import harm
from harm import K

from relu_probe import ReluProbe

EPOCHS = 7
# The moment at which each run is killed, and in which epoch. The order of the callbacks is: before, probes, after, backup,
# saved.
KILLS = [
    ("after", 0),  # no backup yet: the next run starts from the beginning
    ("batch", 1),
    ("after", 2),  # written, but not backed up: the epoch is trained again
    ("writing", 3),
    ("saved", 4),
    ("before", 5),
]


def die() -> None:
    """Kills this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_soon() -> None:
    """Kills this process from another thread within 50 ms, while the probes write."""
    pause = int.from_bytes(os.urandom(2), "big") / 2**16 / 20
    threading.Thread(target=lambda: (time.sleep(pause), die()), daemon=True).start()


class Moment(K.callbacks.Callback):
    """Calls `work` at the moment `end`, if it is named after that: at an epoch's end, or after its second batch."""

    def __init__(self, name: str, end: tuple[str, int], work: Any = die) -> None:
        super().__init__()
        self.name, self.end, self.work, self.epoch = name, end, work, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.name, self.epoch, int(batch)) == (*self.end, 1) and self.name == "batch":
            self.work()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (self.name, epoch) == self.end and self.name != "batch":
            self.work()


def train(place: Path, end: tuple[str, int]) -> None:
    """Trains with two probes until `end`. The file `ended` gets a line for each epoch whose end the probes have seen."""
    ended = os.open(place / "ended", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    x, y = harm.data()
    probes = [ReluProbe(place / "logs", strict=True)]
    probes += [ReluProbe(place / "logs", (x, y), name="other", freq=2, at_start=True, strict=True)]
    told = K.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: os.write(ended, f"{epoch}\n".encode()))
    after = [told, Moment("after", end), Moment("writing", end, lambda: time.sleep(60))]
    before = [Moment("batch", end), Moment("before", end), Moment("writing", end, die_soon)]
    backup = K.callbacks.BackupAndRestore(str(place / "backup"))
    model = harm.net(rate=0.3)
    harm.fitted(model, [*before, *probes, *after, backup, Moment("saved", end)], epochs=EPOCHS, shuffle=False)


def run(place: Path, ends: list[tuple[str, int]]) -> None:
    """Runs the training once for each end. The files that each run leaves are copied to `{place}/0`, `{place}/1`, ..."""
    work = place / "work"
    work.mkdir(parents=True)
    for number, end in enumerate(ends):
        if not (process := os.fork()):
            train(work, end)
            os._exit(0)
        status = os.waitpid(process, 0)[1]
        assert os.WIFEXITED(status) == (end == ("never", 0)), (end, status)
        assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL, (end, status)
        shutil.copytree(work, place / str(number))


if __name__ == "__main__":
    run(Path(sys.argv[1], "killed"), [*KILLS, ("never", 0)])
    run(Path(sys.argv[1], "whole"), [("never", 0)])
