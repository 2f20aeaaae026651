"""Benchmark of the cost of the probe: `python tests/benchmarks/cost.py` prints a table of ratios.

It takes about 15 minutes and needs an otherwise idle machine. The variants of a row are timed alternately in one process, in
random order. For training steps the table shows the median ratio of the repetitions and its standard error; for the
other ratios it shows the ratio of the medians and the half width of its 95 % bootstrap interval.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from diagnosis_cost import diagnosing
from rich.console import Console
from rich.table import Table
from steps import APPLICATIONS, SIZES, K, L, batches, interleaved, model, ratio, training_step

from relu_probe import ReluProbe, measure
from relu_probe.measuring.train_step import training_counters

Row = tuple[str, str, str]  # what was timed, the result, the goal
GOALS = dict(zip([*SIZES, *APPLICATIONS], ("1.03", "1.05", "1.03", "1.05", "1.05", "1.05")))


def shown(times: dict[str, Any], name: str, base: str) -> str:
    """Returns the ratio of the times of two variants, with the half width of its interval, as text."""
    value, spread = ratio(times, name, base)
    return f"{value:.3f} ± {spread:.3f}"


def training(seconds: float, repeats: int) -> list[Row]:
    """Training steps with and without the probe.

    Each repetition builds new models, because the location of a model in memory changes the time of its steps by up to 6 %.
    """
    rows = []
    for name, goal in GOALS.items():
        for jit in (False, True) if name in SIZES else (False,):
            found = [steps_with_and_without(name, jit, seconds / repeats) for _ in range(repeats)]
            with_probe, null, step = (np.array(values) for values in zip(*found))
            what = f"step, {name}{', jit' if jit else ''} ({np.median(step) * 1e3:.1f} ms)"
            rows.append((what, f"{spread(with_probe)}  (null: {spread(null)})", f"<= {goal}"))
    return rows


def steps_with_and_without(name: str, jit: bool, seconds: float) -> tuple[float, float, float]:
    """Returns two ratios of step times, with probe / without and again / without, and the seconds of a step without probe.

    `again` is a second model without a probe: its ratio (the null ratio) shows the error of the measurement.
    """
    variants = {kind: training_step(model(name, jit), batches(name)) for kind in ("without", "again")}
    variants["with"] = training_step(model(name, jit), batches(name), ReluProbe())
    times = interleaved(variants, seconds)
    step = float(np.median(times["without"]))
    return ratio(times, "with", "without")[0], ratio(times, "again", "without")[0], step


def spread(ratios: np.ndarray) -> str:
    """Returns the median of the repetitions and its standard error (1.25 times that of the mean), as text."""
    return f"{np.median(ratios):.3f} ± {1.25 * ratios.std(ddof=1) / np.sqrt(len(ratios)):.3f}"


def first_steps(repeats: int) -> list[Row]:
    """The first training step of large models, in which TensorFlow builds and optimizes the graph, in user CPU time."""
    rows = []
    for name in ("ResNet50", "DenseNet121", "500 Dense layers"):
        found = []
        first_step(name, True)  # the first one of a process also loads what TensorFlow needs only once
        for i in range(repeats):
            seconds = {probed: first_step(name, probed) for probed in ((True, False) if i % 2 else (False, True))}
            found.append(seconds[True] / seconds[False])
        rows.append((f"first step, {name} ({seconds[False]:.1f} s)", spread(np.array(found)), "<= 1.10"))
    return rows


def first_step(name: str, probed: bool) -> float:
    """Returns the seconds of user CPU time of the first step of a new model, which varies less than time on the clock or of the kernel."""
    K.backend.clear_session()
    dense = name == "500 Dense layers"
    shape = (8,) if dense else (32, 32, 3)
    net = deep() if dense else getattr(K.applications, name)(weights=None, input_shape=shape, classes=10)
    net.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    data = tf.data.Dataset.from_tensors((rng.random((8, *shape), np.float32), rng.integers(0, 10, 8))).repeat()
    start = os.times().user
    training_step(net, data, ReluProbe() if probed else None)()
    return os.times().user - start


def deep() -> Any:
    """Returns a model of 500 narrow layers."""
    return K.Sequential([K.Input((8,)), *(L.Dense(16, "relu") for _ in range(500)), L.Dense(10, "softmax")])


def many_layers() -> list[Row]:
    """Three epochs of 500 layers with `log_dir`, above three without a probe, in CPU time; each model has been trained before."""
    x, y, seconds = np.ones((64, 8), np.float32), np.zeros(64, int), []
    for make in (lambda directory: [ReluProbe(directory, verbose=0)], lambda directory: []):
        net = deep()
        net.compile("sgd", "sparse_categorical_crossentropy")
        with tempfile.TemporaryDirectory() as directory:
            for epochs in (1, 3):
                callbacks, start = make(f"{directory}/{epochs}"), time.process_time()
                net.fit(x, y, epochs=epochs, verbose=0, callbacks=callbacks)
            seconds.append(time.process_time() - start)
    return [("three epochs, 500 layers, with log_dir", f"{seconds[0] - seconds[1]:.1f} s above", "<= 1.0 s above")]


def measuring(seconds: float) -> list[Row]:
    """`measure` against `model.evaluate`."""
    rows = []
    for name in list(SIZES)[:3]:
        shape, _, _ = SIZES[name]
        rng, net = np.random.default_rng(0), model(name, False)
        x, y = rng.random((2560, *shape), np.float32), rng.integers(0, 10, 2560)
        variants = {
            "evaluate": lambda net=net, x=x, y=y: net.evaluate(x, y, batch_size=256, verbose=0),
            "measure": lambda net=net, x=x, y=y: measure(net, (x, y), batch_size=256),
        }
        times = interleaved(variants, seconds, warm_up=2)
        rows.append(
            (f"measure / evaluate, {name.split(',')[0]}, batch 256", shown(times, "measure", "evaluate"), "<= 2.5")
        )
    return rows


def others(seconds: float) -> list[Row]:
    """An epoch of 20 batches with the tools that people use today, against the same epoch without callbacks."""
    name = next(iter(SIZES))
    shape, _, batch = SIZES[name]
    rng = np.random.default_rng(0)
    x, y = rng.random((batch * 20, *shape), np.float32), rng.integers(0, 10, batch * 20)
    kinds: dict[str, Callable[[str, Any], list[Any]]] = {
        "without": lambda d, net: [],
        "ReluProbe(log_dir)": lambda d, net: [ReluProbe(d)],
        "keras.callbacks.TensorBoard(histogram_freq=1)": lambda d, net: [K.callbacks.TensorBoard(d, histogram_freq=1)],
        "one sub-model per layer, predict over the training set": lambda d, net: [PredictEachLayer(x)],
        "one eager model(x) per layer on one batch": lambda d, net: [EagerEachLayer(x[:batch])],
    }
    with tempfile.TemporaryDirectory() as directory:
        variants = {}
        for kind, make in kinds.items():
            net = model(name, False)
            callbacks = make(f"{directory}/{len(variants)}", net)
            variants[kind] = lambda net=net, callbacks=callbacks: net.fit(x, y, batch, verbose=0, callbacks=callbacks)
        times = interleaved(variants, seconds, warm_up=2)
    return [(f"epoch of 20 batches, {kind}", shown(times, kind, "without"), "") for kind in list(kinds)[1:]]


class PredictEachLayer(K.callbacks.Callback):
    """Predicts the outputs of each layer for the training set, like keras-contrib's DeadReluDetector."""

    def __init__(self, x: Any) -> None:
        super().__init__()
        self.x = x

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for layer in self.model.layers[:-1]:
            outputs = K.Model(self.model.inputs, layer.output).predict(self.x, verbose=0)
            np.sum(outputs, axis=0) == 0  # noqa: B015


class EagerEachLayer(PredictEachLayer):
    """Computes the outputs of each layer for one batch, eagerly."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for layer in self.model.layers[:-1]:
            np.count_nonzero(K.Model(self.model.inputs[0], layer.output)(self.x).numpy(), axis=0)


def wide(layers: int, neurons: int) -> Any:
    """Returns a model with this many parallel ReLU layers."""
    x = K.Input((2,))
    outputs = [L.Dense(neurons, "relu")(x) for _ in range(layers)]
    net = K.Model(x, L.Dense(1)(L.Concatenate()(outputs) if layers > 1 else outputs[0]))
    net.compile("sgd", "mse")
    return net


def epoch_end(layers: int, neurons: int, repeats: int = 5) -> float:
    """Returns the seconds that the end of an epoch takes: reading the counters, making the report, writing event files."""
    net, times = wide(layers, neurons), []
    with tempfile.TemporaryDirectory() as directory:
        probe = ReluProbe(directory, images=False)  # images are written only at reports 1, 2, 4, 8, ...
        step = training_step(net, tf.data.Dataset.from_tensors((np.ones((8, 2)), np.ones((8, 1)))).repeat(), probe)
        for epoch in range(repeats):
            probe.on_epoch_begin(epoch)
            step()
            start = time.perf_counter()
            probe.on_epoch_end(epoch, {})
            times.append(time.perf_counter() - start)
    return float(np.median(times))


def scaling() -> list[Row]:
    """The time of the end of an epoch, for growing numbers of layers and of neurons."""
    rows = [("end of an epoch, 50 layers x 1,000 neurons", f"{epoch_end(50, 1000):.3f} s", "<= 0.3 s")]
    rows += [
        (f"end of an epoch, {n} layers x 100 neurons", f"{epoch_end(n, 100):.3f} s", "linear")
        for n in (1, 10, 100, 200)
    ]
    rows += [
        (f"end of an epoch, 1 layer x {n:,} neurons", f"{epoch_end(1, n):.3f} s", "linear")
        for n in (10**2, 10**4, 10**6)
    ]
    return rows


def memory() -> list[Row]:
    """The bytes of the counters, and the peak memory of a fit with a million neurons."""
    net = wide(1, 1000)
    net.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0, callbacks=[ReluProbe()])
    per_neuron = sum(v.dtype.size * v.shape.num_elements() for v in training_counters(net).variables()) / 1000
    rows, without = [("bytes per neuron", f"{per_neuron:.1f}", "<= 64")], peak("")
    for arguments in ("", "data=(x, y)", "log_dir", "activation_sum=True", "log_dir, activation_sum=True"):
        what = f"extra peak RSS of a fit with ReluProbe({arguments}), 1,000,000 neurons, batch 32"
        rows.append((what, f"{peak(f'ReluProbe({arguments})') - without:.0f} MB", "<= 250 MB"))
    return rows


def peak(callback: str) -> float:
    """Returns the peak memory of two epochs of a fit with this callback, in a child process, in MB."""
    code = f"""
import numpy as np, resource, tempfile, tensorflow as tf
from relu_probe import ReluProbe
K, L = tf.keras, tf.keras.layers
net = K.Sequential([K.Input((2,)), L.Dense(10**6, "relu"), L.Dense(1)])
net.compile("sgd", "mse")
x, y = np.ones((64, 2)), np.ones((64, 1))
with tempfile.TemporaryDirectory() as log_dir:
    net.fit(x, y, epochs=2, verbose=0, callbacks=[{callback}])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def importing() -> list[Row]:
    """The time to import the package."""
    code = "import time; start = time.perf_counter(); import relu_probe; print(time.perf_counter() - start)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(7)
    ]
    return [("import relu_probe", f"{np.median(runs) * 1e3:.0f} ms", "<= 50 ms")]


def main() -> None:
    """Prints each row as soon as it is measured, and the table at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="seconds of timing for each row (default 20)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="repetitions for the training steps, at least 2 (default 3)"
    )
    parser.add_argument(
        "--only",
        help="the only part to run: importing, memory, scaling, training, first_steps, many_layers, measuring, diagnosing or others",
    )
    args = parser.parse_args()
    parts: dict[str, Callable[[], list[Row]]] = {
        "importing": importing,
        "memory": memory,
        "scaling": scaling,
        "training": lambda: training(args.seconds, args.repeats),
        "first_steps": lambda: first_steps(5),
        "many_layers": many_layers,
        "measuring": lambda: measuring(args.seconds),
        "diagnosing": lambda: diagnosing(args.repeats),
        "others": lambda: others(args.seconds),
    }
    table = Table(
        title=f"TensorFlow {tf.__version__}, {len(tf.config.list_physical_devices('GPU'))} GPUs", show_lines=False
    )
    for header in ("what", "result", "goal"):
        table.add_column(header)
    for part in [parts[args.only]] if args.only else parts.values():
        for row in part():
            table.add_row(*row)
            print(*row, sep=" | ", file=sys.stderr, flush=True)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
