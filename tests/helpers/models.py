"""Small models that several tests share, and data for them."""

from typing import Any

import numpy as np
import tensorflow as tf

K, L = tf.keras, tf.keras.layers


def sequential(
    inputs: int | tuple[int | None, ...],
    *layers: Any,
    optimizer: Any = None,
    loss: Any = "mse",
    name: str | None = None,
    kind: Any = K.Sequential,
    **compile_args: Any,
) -> Any:
    """Returns a compiled `Sequential` model.

    Args:
        inputs: the number of input features, or the shape of one sample.
        layers: all layers, the output layer included.
        optimizer: SGD at rate 0 by default, so that the weights do not change.
        loss, compile_args: as `Model.compile` takes them.
        name: the name of the model.
        kind: a subclass of `Sequential`.
    """
    shape = inputs if isinstance(inputs, tuple) else (inputs,)
    model = kind([K.Input(shape), *layers], name=name)
    model.compile(K.optimizers.SGD(0.0) if optimizer is None else optimizer, loss, **compile_args)
    return model


def dense(units: int = 5, name: str | None = None, activation: Any = "relu", **more: Any) -> Any:
    """Returns a Dense layer whose neuron 0 is dead because of its bias."""
    bias = K.initializers.Constant([-50.0] + [0.1] * (units - 1))
    return L.Dense(units, activation, name=name, bias_initializer=bias, **more)


def two_hidden_layers(**options: Any) -> Any:
    """Returns a 4-3-2-1 model with the ReLU layers `a` and `b`; neuron 0 of `a` is dead."""
    return sequential(4, dense(3, "a"), L.Dense(2, "relu", name="b"), L.Dense(1, name="out"), **options)


def integer_network(activations: tuple[str, str] = ("relu", "relu"), **options: Any) -> Any:
    """Returns a 6-5-4-1 model with the layers `a` and `b`; neuron 0 of `a` is dead.

    The weights are small integers: with `integer_data` all sums are exact in any order, in float16 too.
    """
    hidden = [L.Dense(units, kind, name=name) for units, kind, name in zip((5, 4), activations, "ab")]
    model = sequential(6, *hidden, L.Dense(1, name="out", dtype="float32"), **options)
    rng = np.random.default_rng(1)
    weights = [rng.integers(-2, 3, weight.shape).astype("f") for weight in model.get_weights()]
    weights[1][0] = -100
    model.set_weights(weights)
    return model


def integer_data(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs `(samples, 6)` and labels `(samples, 1)` that are small integers."""
    rng = np.random.default_rng(0)
    return rng.integers(-3, 4, (samples, 6)).astype("f"), rng.integers(-3, 4, (samples, 1)).astype("f")


class OwnCell(L.Layer):
    """An RNN cell of the user's, with a ReLU as a function or in a layer, which cannot be counted in the loop."""

    def __init__(self, kind: str = "function", **more: Any) -> None:
        super().__init__(**more)
        self.kind, self.state_size = kind, 4
        self.dense = L.Dense(4, "relu" if kind == "layer" else None, kernel_initializer="ones", name="dense")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, t: Any, states: Any) -> Any:
        a = self.dense(t) if self.kind == "layer" else tf.nn.relu(self.dense(t))
        return a, [a]


class OwnSchedule(K.optimizers.schedules.LearningRateSchedule):
    """A schedule of the user's, which is not registered with Keras."""

    def __init__(self, first):
        self.first = first

    def __call__(self, step):
        return self.first / (1 + tf.cast(step, tf.float32))

    def get_config(self):
        return {"first": self.first}
