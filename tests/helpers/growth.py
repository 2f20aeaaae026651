"""Script that measures memory, files and threads over many epochs and fits; run with PYTHONMALLOC=malloc, it prints JSON.

Bytes in use come from malloc's own statistics, which are exact to a few hundred bytes; the size of a process is known only
to the page.
"""

import ctypes
import gc
import json
import os
import sys
import tempfile
import threading
from typing import Any

import numpy as np
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe

K, L = tf.keras, tf.keras.layers
X, Y = np.ones((6, 4), "f"), np.ones((6, 1), "f")
FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def known() -> bool:
    """Whether malloc's statistics can be read here."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallinfo2")  # glibc 2.33


def used() -> int:
    """Returns the bytes in use after a garbage collection."""
    gc.collect()
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _Info
    info = ask()
    return int(info.uordblks + info.hblkhd)


def look() -> dict[str, Any]:
    """Returns the numbers of bytes in use, open event files, open files, and Python threads."""
    files = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(path) for path in files if os.path.islink(path)]
    events = sum("tfevents" in target for target in targets)
    return {"bytes": used(), "events": events, "files": len(targets), "threads": threading.active_count()}


class Looks(K.callbacks.Callback):
    """Calls `look` at the end of these epochs."""

    def __init__(self, epochs: list[int]) -> None:
        super().__init__()
        self.epochs, self.seen = epochs, []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch in self.epochs:
            self.seen.append(look())


class Hoarder(K.callbacks.Callback):
    """A planted mistake: it keeps an array from each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.kept.append(np.zeros(100))


class Passes(K.callbacks.Callback):
    """The least that `data=` needs: one pass over a dataset at the end of each epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for _ in DATASET.prefetch(1):
            pass


DATASET = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


def net() -> Any:
    """Returns a small model."""
    return sequential(4, L.Dense(6, "relu"), L.Dense(3, "relu"), L.Dense(1), optimizer="sgd")


def epochs(probes: list[Any], at: list[int]) -> list[dict[str, Any]]:
    """One fit with one step per epoch on endless data, for which Keras makes a single iterator."""
    data, looks = tf.data.Dataset.from_tensors((X, Y)).repeat(), Looks(at)
    net().fit(data, steps_per_epoch=1, epochs=at[-1] + 1, verbose=0, callbacks=[*probes, looks])
    return looks.seen


def fits(probes: list[Any], at: list[int], before: Any = lambda: None) -> list[dict[str, Any]]:
    """Many fits of one model, of two steps each; the last batch is a partial one."""
    model, seen = net(), []
    for i in range(at[-1] + 1):
        before()
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=probes)
        if i in at:
            seen.append(look())
    return seen


def summaries(logs: str) -> list[dict[str, Any]]:
    """100 calls of TensorFlow's own `tf.summary.scalar` before each look, without the probe."""
    seen = []
    with tf.summary.create_file_writer(logs).as_default(step=tf.constant(0, tf.int64)):
        for _ in range(2):
            for _ in range(100):
                tf.summary.scalar("plain", np.float32(0.5))
            seen.append(look())
    return seen


def forget() -> None:
    """A planted mistake: counters, and so the training step, made anew for each fit."""
    from relu_probe.measuring import model_state

    model_state._states._values.clear()


def main() -> dict[str, Any]:
    """Returns the looks of each case, from a start to an end."""
    logs = tempfile.mkdtemp()
    probe, measuring = ReluProbe(logs, keep=4), ReluProbe(logs, (X, Y), name="data", keep=4)
    start = look()
    found = {
        "1,000 epochs": epochs([probe], [200, 600, 999]),
        "epochs without": epochs([], [100, 200]),
        "epochs, hoarding": epochs([Hoarder()], [100, 150]),
        "data": epochs([measuring], [70, 170]),
        "passes": epochs([Passes()], [70, 170]),
        "summaries": summaries(logs),
        "100 fits": fits([probe], [20, 60, 99]),
        "fits without": fits([], [20, 50]),
        "fits, forgetting": fits([probe], [2, 5], forget),
    }
    return found | {"start": [start], "end": [look()]}


if __name__ == "__main__":
    print(json.dumps(main()))
