"""A cluster of worker processes on this machine: `run(job)` starts them, `python -m cluster job log_dir index` is one.

A job prints its reports as JSON on its last line. The learning rate is 0, so that counts can be compared.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from child_process import environment
from models import integer_data, integer_network

from relu_probe import ReluProbe, Report, measure, watch
from relu_probe.callbacks import relu_probe
from relu_probe.structure.layer_selection import LayerSelection
from relu_probe.utils.distributed import found_by_any

K = tf.keras
N, BATCH, EPOCHS = 22, 8, 3  # the last batch is a partial one, and odd for two workers


class Worker(NamedTuple):
    """Exit code and output of a worker that has ended."""

    code: int
    out: str
    err: str

    def reports(self) -> list[Report]:
        """Returns the reports that the worker printed."""
        return [Report.from_dict(report) for report in json.loads(self.out.splitlines()[-1])]


def run(job: str, log_dir: Any = "", workers: int = 2, timeout: float = 150) -> list[Worker]:
    """Runs all workers of a job. Workers that hang are killed at the timeout, and the test fails."""
    with ExitStack() as sockets:
        free = [sockets.enter_context(socket.socket()) for _ in range(workers)]
        for one in free:
            one.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in free]
    started = [_start(job, log_dir, addresses, index) for index in range(workers)]
    end = time.monotonic() + timeout
    try:
        done = [process.communicate(timeout=max(0.1, end - time.monotonic())) for process in started]
    finally:
        for process in started:
            process.kill()
    return [Worker(process.returncode, *texts) for process, texts in zip(started, done)]


def _start(job: str, log_dir: Any, addresses: list[str], index: int) -> Any:
    config = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
    command = [sys.executable, "-m", "cluster", job, str(log_dir), str(index)]
    env = environment(TF_CONFIG=config)
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# --- the same model and data in every process -------------------------------------------------------------------------


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs and labels that all jobs use."""
    return integer_data(N)


def batches(repeat: bool = False) -> tf.data.Dataset:
    """Returns the same data as a dataset that the workers share out by samples."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH)
    return (data.repeat() if repeat else data).with_options(options)


def watched(strategy: Any, built: Any, each_epoch: Callable[[int], None] = lambda epoch: None) -> list[Report]:
    """Runs a custom training loop, and returns a report for each epoch."""

    def one(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((built(x, training=True) - y) ** 2) / BATCH
        for weight, gradient in zip(built.trainable_variables, tape.gradient(loss, built.trainable_variables)):
            weight.assign_sub(0.0 * gradient)

    @tf.function
    def step(batch: Any) -> None:
        strategy.run(one, args=batch)

    reports = []
    for epoch in range(EPOCHS):
        each_epoch(epoch)
        with watch(built) as w:
            for batch in strategy.experimental_distribute_dataset(batches()):
                step(batch)
            reports.append(w.report())
    return reports


class Event(K.callbacks.Callback):
    """Calls `event` when an epoch begins."""

    def __init__(self, event: Callable[[int], None]) -> None:
        super().__init__()
        self.event = event

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.event(epoch)


# --- the jobs ---------------------------------------------------------------------------------------------------------


def multi_worker() -> tuple[Any, Any]:
    """Returns the strategy of this worker, and a model that was made in its scope."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        return strategy, integer_network()


def fit(
    log_dir: str, index: int, event: Callable[[int], None] = lambda epoch: None, strict: bool = True
) -> list[Report]:
    _, built = multi_worker()
    probe = ReluProbe(log_dir, strict=strict)
    built.fit(batches(), epochs=EPOCHS, verbose=0, callbacks=[probe, Event(event)])
    return probe.reports


def fit_and_measure(log_dir: str, index: int) -> list[Report]:
    _, built = multi_worker()
    built.fit(batches(), verbose=0, callbacks=[probe := ReluProbe(strict=True)])
    with_data = ReluProbe(data=batches(), strict=True)
    built.fit(batches(), verbose=0, callbacks=[with_data])
    return [probe.report, with_data.report, measure(built, batches()), measure(built, arrays())]


def fit_bare(log_dir: str, index: int) -> list[Report]:
    multi_worker()[1].fit(batches(), verbose=0)
    return []


def loop(log_dir: str, index: int) -> list[Report]:
    return watched(*multi_worker())


def _kill(index: int) -> Callable[[int], None]:
    """The event that kills the second worker when the last epoch begins."""
    return lambda epoch: os.kill(os.getpid(), signal.SIGKILL) if index == 1 and epoch == EPOCHS - 1 else None


def fit_killed(log_dir: str, index: int) -> list[Report]:
    return fit(log_dir, index, _kill(index), strict=False)


def loop_killed(log_dir: str, index: int) -> list[Report]:
    return watched(*multi_worker(), _kill(index))


def fit_on_a_full_disk(log_dir: str, index: int) -> list[Report]:
    """From the second epoch on the chief cannot write."""
    import resource

    def fill(epoch: int) -> None:
        if index == 0 and epoch == 1:
            size = max(file.stat().st_size for file in Path(log_dir).rglob("events*"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return fit(log_dir, index, fill, strict=False)


class LooksInVain(LayerSelection):
    """Raises MemoryError in the second epoch, while the other workers read their counters."""

    def find_late_layers(self, model: Any, *, counted: bool) -> None:
        self.looks = getattr(self, "looks", 0) + 1
        if self.looks == 2:
            raise MemoryError("on one worker")
        super().find_late_layers(model, counted=counted)


def fit_with_a_fault(log_dir: str, index: int) -> list[Report]:
    """The second worker runs out of memory while it measures."""
    relu_probe.LayerSelection = LooksInVain if index == 1 else LayerSelection  # type: ignore[misc]
    return fit(log_dir, index, strict=False)


def agree(log_dir: str, index: int) -> list[Report]:
    """All workers learn whether any of them found something: the first, the second, both, none."""
    strategy, _ = multi_worker()
    found = [found_by_any(strategy, index in finders) for finders in ([0], [1], [0, 1], [])]
    assert found == [True, True, True, False], found
    return []


def _fit_with_a_limit(index: int, **options: Any) -> list[Report]:
    """The limit is exceeded from the first epoch on. The second worker loses its second report; it prints why the fit ended."""
    relu_probe.LayerSelection = LooksInVain if index == 1 else LayerSelection  # type: ignore[misc]
    _, built = multi_worker()
    probe = ReluProbe(max_dead=0.1, patience=1, **options)
    try:
        built.fit(batches(), epochs=5, verbose=0, callbacks=[probe])
    except RuntimeError as error:
        print(error)
    return probe.reports


def fit_that_is_stopped(log_dir: str, index: int) -> list[Report]:
    return _fit_with_a_limit(index)


def fit_that_is_failed(log_dir: str, index: int) -> list[Report]:
    return _fit_with_a_limit(index, freq=2, on_limit="raise")


def _broken(index: int) -> tf.data.Dataset:
    """Data whose second pass fails on the second worker."""
    passes = []

    def generate() -> Any:
        passes.append(None)
        for x, y in tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH, drop_remainder=True):
            yield x, y
            if index == 1 and len(passes) == 2:
                raise OSError("the file is gone")

    spec = tuple(tf.TensorSpec((BATCH, width)) for width in (6, 1))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return tf.data.Dataset.from_generator(generate, output_signature=spec).with_options(options)


def fit_on_broken_data(log_dir: str, index: int) -> list[Report]:
    _, built = multi_worker()
    built.fit(batches(), epochs=EPOCHS, verbose=0, callbacks=[ReluProbe(log_dir, data=_broken(index))])
    return []


if __name__ == "__main__":
    found = globals()[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    print(json.dumps([report.to_dict() for report in found]), flush=True)
