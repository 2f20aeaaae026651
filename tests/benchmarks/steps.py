"""Models whose training steps the benchmarks time, and the timer, which alternates between variants in one process."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe import ReluProbe

K, L = tf.keras, tf.keras.layers


def _conv() -> list[Any]:
    """The convolutional base of Keras's own tutorials."""
    return [
        *(L.Conv2D(32, 3, activation="relu"), L.MaxPooling2D()),
        *(L.Conv2D(64, 3, activation="relu"), L.MaxPooling2D()),
        *(L.Conv2D(64, 3, activation="relu"), L.Flatten()),
    ]


SIZES = {  # name -> (input shape, hidden layers, batch size)
    "MLP 3 x 512, 784 inputs, batch 128": ((784,), lambda: [L.Dense(512, "relu") for _ in range(3)], 128),
    "MLP 3 x 64, 64 inputs, batch 32": ((64,), lambda: [L.Dense(64, "relu") for _ in range(3)], 32),
    "MLP 3 x 1024, 1024 inputs, batch 1024": ((1024,), lambda: [L.Dense(1024, "relu") for _ in range(3)], 1024),
    "CNN 3 conv layers, 32 x 32 x 3, batch 64": ((32, 32, 3), _conv, 64),
}
APPLICATIONS = {  # name -> (the function of keras.applications that makes the model, input shape, batch size)
    "ResNet50, 32 x 32 x 3, batch 32": ("ResNet50", (32, 32, 3), 32),
    "MobileNetV2, 32 x 32 x 3, batch 32": ("MobileNetV2", (32, 32, 3), 32),
}


def model(name: str, jit: bool) -> Any:
    """Returns a new model of this name."""
    K.utils.set_random_seed(0)
    if name in APPLICATIONS:
        make, shape, _ = APPLICATIONS[name]
        net = getattr(K.applications, make)(weights=None, input_shape=shape, classes=10, classifier_activation=None)
    else:
        shape, hidden, _ = SIZES[name]
        net = K.Sequential([K.Input(shape), *hidden(), L.Dense(10)])
    loss = K.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile("adam", loss, jit_compile=jit)
    return net


def batches(name: str) -> Any:
    """Returns an endless dataset whose batch size is unknown when the step is traced, as in `fit` with arrays."""
    shape, batch = APPLICATIONS[name][1:] if name in APPLICATIONS else SIZES[name][::2]
    rng = np.random.default_rng(0)
    data = rng.random((batch, *shape), np.float32), rng.integers(0, 10, batch)
    unknown = tf.compat.v1.placeholder_with_default
    return (
        tf.data.Dataset.from_tensors(data).repeat().map(lambda x, y: (unknown(x, [None, *shape]), unknown(y, [None])))
    )


def training_step(net: Any, data: Any, probe: ReluProbe | None = None) -> Callable[[], None]:
    """Returns a function that runs one step as `fit` does, with the callback's hooks around the train function."""
    iterator = iter(data)
    if probe is not None:
        probe.set_params({"steps": None})
        probe.set_model(net)
        probe.on_train_begin()
        probe.on_epoch_begin(0)
    net.make_train_function()

    def step() -> None:
        if probe is not None:
            probe.on_train_batch_begin(0)
        logs = net.train_function(iterator)
        loss = float(tf.nest.flatten(logs)[0])
        if probe is not None:
            probe.on_train_batch_end(0, {"loss": loss})

    return step


def interleaved(variants: dict[str, Callable[[], None]], seconds: float, warm_up: int = 5) -> dict[str, np.ndarray]:
    """Returns the seconds of each call of each variant.

    The variants alternate, so that a disturbance affects all of them. Each round has a new random order, because a step leaves
    a warm or a cold cache to the next one (1 to 2 % of a small model's step).
    """
    for variant in variants.values():
        for _ in range(warm_up):
            variant()
    times: dict[str, list[float]] = {name: [] for name in variants}
    rng, names = np.random.default_rng(0), list(variants)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[names[0]]) < 15:
        for name in rng.permutation(names):
            start = time.perf_counter()
            variants[name]()
            times[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in times.items()}


def ratio(times: dict[str, np.ndarray], name: str, base: str) -> tuple[float, float]:
    """Returns the ratio of the medians, and the half width of its 95 % interval (bootstrap over pairs)."""
    pairs = np.stack([times[name], times[base]])
    rng = np.random.default_rng(0)
    picks = rng.integers(0, pairs.shape[1], (400, pairs.shape[1]))
    medians = np.median(pairs[:, picks], axis=2)
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    return float(np.median(pairs[0]) / np.median(pairs[1])), float(high - low) / 2
