"""Random small models and data. Weights and data are small integers, so that sums are exact in any order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

K, L = tf.keras, tf.keras.layers
EXTREMES = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-40, -1e-40, 1e-30]
SHAPES = [(3,), (4, 2), (3, 3, 2)]
RELUS = ["relu", "relu6", "ceiling", "threshold", "layer", "activation", "squared", "batchnorm", "leaky"]
PARTS = ["plain", "conv", "dropout", "shared", "branches", "nested"]


@dataclass(frozen=True)
class Case:
    """A model, the samples, the batch size, and what is planted into the data: (place, index of `EXTREMES`)."""

    shape: tuple[int, ...]
    parts: list[tuple[str, str, int]]  # (part, ReLU, units)
    samples: int
    batch: int
    planted: list[tuple[int, int]]
    seed: int

    @property
    def random(self) -> bool:
        """Whether a training step is."""
        return any(part == "dropout" for part, _, _ in self.parts)

    def model(self, rate: float = 0.0) -> Any:
        K.utils.set_random_seed(self.seed)
        x = h = K.Input(self.shape)
        first = True
        for part, relu, units in self.parts:
            h = add(h, "plain" if first and part == "dropout" else part, relu, units)
            first = False
        model = K.Model(x, L.Dense(1)(L.Flatten()(L.Dense(2, "relu")(h))))
        rng = np.random.default_rng(self.seed)
        model.set_weights([_weight(rng, w) for w in model.weights])
        model.compile(K.optimizers.SGD(rate), K.losses.MeanSquaredError(reduction="sum"))
        return model

    def data(self, planted: bool = True) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.seed + 1)
        x = rng.integers(-3, 4, (self.samples, *self.shape)).astype("float32")
        for place, which in self.planted if planted else ():
            x.flat[place % x.size] = EXTREMES[which]
        return x, rng.integers(-3, 4, (self.samples, 1)).astype("float32")


def _weight(rng: Any, weight: Any) -> np.ndarray:
    """A third of the biases makes the neuron dead. Statistics of BatchNormalization are such that nothing is rounded."""
    name = getattr(weight, "path", weight.name).rpartition("/")[2].partition(":")[0]
    shape = tuple(weight.shape)
    if weight.dtype not in ("float32", tf.float32):  # the state of a Dropout's seed
        return np.asarray(weight)
    if name == "moving_variance":
        return np.full(shape, 1.0 - 1e-3, "f")
    low = rng.integers(-2, 3, shape).astype("float32")
    return np.where(rng.random(shape) < 0.3, -60, low).astype("float32") if name == "bias" else low


def add(h: Any, part: str, relu: str, units: int) -> Any:
    rank = len(h.shape)
    if part == "dropout":
        return L.Dropout(0.5)(h)
    if part == "conv" and rank > 2:
        return _relu((L.Conv1D if rank == 3 else L.Conv2D), relu, units, 2, padding="same")(h)
    if part == "shared":
        layer = _relu(L.Dense, relu, units)
        return L.Add()([layer(h), layer(L.Dense(int(h.shape[-1]))(h))])
    if part == "branches":
        return L.Concatenate()([_relu(L.Dense, relu, units)(h), _relu(L.Dense, "relu", 2)(h)])
    if part == "nested":
        inner = K.Input(tuple(h.shape[1:]))
        return K.Model(inner, L.Dense(2)(_relu(L.Dense, relu, units)(inner)))(h)
    return _relu(L.Dense, relu, units)(h)


def squared(z: Any) -> Any:
    return tf.square(tf.nn.relu(z))


def _relu(layer: Any, kind: str, *args: Any, **more: Any) -> Any:
    """A layer of weights that ends in a ReLU of this kind, as a function of a tensor."""
    if kind in ("relu", "relu6", "squared"):
        return layer(*args, activation={"relu": "relu", "relu6": tf.nn.relu6, "squared": squared}[kind], **more)
    ends = {
        "ceiling": lambda: [L.ReLU(max_value=2.0)],
        "threshold": lambda: [L.ReLU(threshold=1.0)],
        "layer": lambda: [L.ReLU()],
        "activation": lambda: [L.Activation("relu")],
        "batchnorm": lambda: [L.BatchNormalization(), L.ReLU()],
        "leaky": lambda: [L.LeakyReLU()],  # no ReLU: not counted
    }[kind]()
    layers = [layer(*args, **more), *ends]

    def call(tensor: Any) -> Any:
        for one in layers:
            tensor = one(tensor)
        return tensor

    return call


cases = st.builds(
    Case,
    shape=st.sampled_from(SHAPES),
    parts=st.lists(
        st.tuples(st.sampled_from(PARTS), st.sampled_from(RELUS), st.integers(1, 4)), min_size=1, max_size=3
    ),
    samples=st.integers(1, 9),
    batch=st.integers(1, 9),
    planted=st.lists(st.tuples(st.integers(0, 99), st.integers(0, len(EXTREMES) - 1)), max_size=3),
    seed=st.integers(0, 10_000),
)
