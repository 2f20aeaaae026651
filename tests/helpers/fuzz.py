"""Hypothesis strategies for random small models and data.

The models are made of the building blocks of `parts`. Weights and data are small integers, so that sums are exact in any
order.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st
from parts import PARTS, Make

K, L = tf.keras, tf.keras.layers
EXTREMES = [-0.0, np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-40]
SHAPES = [(3,), (4, 2), (3, 3, 2), (2, 2, 2, 1)]


@dataclass(frozen=True)
class Case:
    """A model, its data and the batch size. `planted` has pairs (place in the data, index in `EXTREMES`)."""

    shape: tuple[int, ...]
    parts: list[tuple[str, str, int]]  # (part, kind of ReLU, units)
    outputs: int
    samples: int
    batch: int
    planted: list[tuple[int, int]]
    empty: list[int]  # the batches that are all zeros
    seed: int

    @property
    def random(self) -> bool:
        """Whether a training step draws random numbers."""
        return any(part == "dropout" for part, _, _ in self.parts)

    def model(self, rate: float = 0.0) -> Any:
        """Returns the model, compiled with SGD at this rate."""
        K.utils.set_random_seed(self.seed)
        x = h = K.Input(self.shape)
        for place, (part, relu, units) in enumerate(self.parts):
            h = PARTS[part](h, Drawn(place, relu, units))
        last = L.Flatten()(L.Dense(2, "relu")(h))
        model = K.Model(x, [L.Dense(1, name=f"out{n}")(last) for n in range(self.outputs)])
        rng = np.random.default_rng(self.seed)
        model.set_weights([_weight(rng, w) for w in model.weights])
        model.compile(K.optimizers.SGD(rate), [K.losses.MeanSquaredError(reduction="sum")] * self.outputs)
        return model

    def data(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Returns the inputs, and the labels of each output."""
        rng = np.random.default_rng(self.seed + 1)
        both = rng.integers(-3, 4, (self.samples, int(np.prod(self.shape)) + 1)).astype("float32")
        for batch in self.empty:
            both[batch * self.batch : (batch + 1) * self.batch] = 0
        for place, which in self.planted:
            both.flat[place % both.size] = EXTREMES[which]
        return both[:, 1:].reshape(self.samples, *self.shape), [both[:, :1]] * self.outputs


def _weight(rng: Any, weight: Any) -> np.ndarray:
    """Returns random values for a weight.

    A third of the biases make their neuron dead. With the statistics of a BatchNormalization nothing is rounded. An RNN adds
    its steps, so that its values stay within the integers that float32 represents.
    """
    name = getattr(weight, "path", weight.name).rpartition("/")[2].partition(":")[0]
    shape = tuple(weight.shape)
    if weight.dtype not in ("float32", tf.float32):  # the seed state of a Dropout
        return np.asarray(weight)
    if name == "moving_variance":
        return np.full(shape, 1.0 - 1e-3, "f")
    low = rng.integers(-1, 2, shape).astype("float32")
    if name == "recurrent_kernel":
        return low * np.eye(*shape, dtype="f")
    return np.where(rng.random(shape) < 0.3, -60, low).astype("float32") if name == "bias" else low


@tf.custom_gradient
def _whole(x: Any) -> Any:
    return tf.floor(x + 0.3183), lambda gradient: tf.floor(gradient + 0.3183)


class Grid(L.Layer):
    """Rounds its input and its gradient to integers; put before and after layers that round (a mean, a softmax).

    Without it a value that is zero in exact arithmetic is zero with one order of the sums and almost zero with another. The
    rounding changes at an odd fraction, which is no mean of small integers.
    """

    def call(self, x: Any) -> Any:
        return _whole(x)


class Drawn(Make):
    """Makes the layers of the model's `place`-th part, with a drawn kind of ReLU."""

    def __init__(self, place: int, relu: str, units: int) -> None:
        self.place, self.relu, self.units = place, relu, units

    @property
    def grid(self) -> list[Any]:
        return [Grid()]

    def name(self, name: str) -> str:
        return f"{name}_{self.place}"

    def __call__(self, layer: Any, *args: Any, name: str, **more: Any) -> list[Any]:
        relu, self.relu = self.relu, self.relu.replace("squared", "relu")  # a squared square is too large
        weighted, ends = RELUS[relu](lambda **end: layer(*args, name=self.name(name), **end, **more))
        vars([weighted, *ends][-1])["of"] = [weighted, *ends]  # set in vars, because Keras tracks attributes
        return [weighted, *ends]


def lost(layer: Any, neurons: int) -> Any:
    """Returns `(neurons,)` bool: NaN in the weights of the neuron's pre-activation; None if these are not known."""
    weighted = [each for each in vars(layer).get("of", [layer]) if getattr(each, "weights", ())]
    if not weighted:
        return None
    found, kind = np.zeros(neurons, bool), type(weighted[-1]).__name__
    for weight in weighted[-1].weights:
        nan = np.isnan(np.asarray(weight))
        if "Transpose" in kind and nan.ndim > 1:
            nan = np.swapaxes(nan, -1, -2)
        if nan.shape[-1] == neurons or "Depthwise" in kind:
            found |= nan.reshape(-1, neurons).any(axis=0)
    return found


def squared(z: Any) -> Any:
    """A squared ReLU."""
    return tf.square(tf.nn.relu(z))


# Kinds of ReLU. Each function takes one that makes a layer with weights; it returns that layer, and the layers after it.
RELUS = {
    "relu": lambda layer: (layer(activation="relu"), []),
    "relu6": lambda layer: (layer(activation=tf.nn.relu6), []),
    "squared": lambda layer: (layer(activation=squared), []),
    "bounded": lambda layer: (layer(activation=L.ReLU(max_value=2.0)), []),
    "ceiling": lambda layer: (layer(), [L.ReLU(max_value=2.0)]),
    "threshold": lambda layer: (layer(), [L.ReLU(threshold=1.0)]),
    "layer": lambda layer: (layer(), [L.ReLU()]),
    "activation": lambda layer: (layer(), [L.Activation("relu")]),
    "batchnorm": lambda layer: (layer(), [Grid(), L.BatchNormalization(), Grid(), L.ReLU()]),
    "leaky": lambda layer: (layer(), [L.LeakyReLU(0.5)]),  # not a ReLU: not counted
}


def _adds_axes(parts: list[str]) -> bool:
    """Whether a part adds outputs whose neurons are on two axes: its ReLU is not counted, because no axis is proved."""
    moved = [i for i, part in enumerate(parts) if part.startswith("channels_first") or part == "permuted"]
    return bool(moved) and "custom_layer" in parts[moved[0] :]


cases = st.builds(
    Case,
    shape=st.sampled_from(SHAPES),
    parts=st.lists(
        st.tuples(st.sampled_from(list(PARTS)), st.sampled_from(list(RELUS)), st.integers(1, 4)), min_size=1, max_size=3
    ).filter(
        lambda parts: [relu for _, relu, _ in parts].count("squared") < 2 and not _adds_axes([p for p, _, _ in parts])
    ),
    outputs=st.integers(1, 2),
    samples=st.integers(1, 9),
    batch=st.integers(1, 9),
    planted=st.lists(st.tuples(st.integers(0, 99), st.integers(0, len(EXTREMES) - 1)), max_size=3),
    empty=st.lists(st.integers(0, 2), max_size=1),
    seed=st.integers(0, 10_000),
)
