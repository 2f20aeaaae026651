"""The data of the clinic's cases, the small networks that they train, and the references that were never sick."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from trainings import Training

K, L = tf.keras, tf.keras.layers
LN_10 = float(np.log(10))  # the crossentropy of a guess among ten classes
Data = Callable[[int], tuple[Any, Any]]


def constant(value):
    return K.initializers.Constant(value)


def uniform(low, high, seed):
    return K.initializers.RandomUniform(low, high, seed=seed)


def normal(seed, samples=256, features=8):
    """`(x, y)`: standard normal inputs, and a smooth function of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, features)).astype("float32")
    return x, (np.tanh(x[:, :1]) + 0.5 * x[:, 1:2] * x[:, 2:3]).astype("float32")


def digits(seed=0, samples=500):
    """`(x, y)`: scikit-learn's digits, pixels from 0 to 1, and their classes."""
    found = load_digits()
    return (found.data[:samples] / 16).astype("float32"), found.target[:samples]


def moved(data: Data, scale: float, offset: float) -> Data:
    """The same data with the targets `scale * y + offset`."""

    def changed(seed):
        x, y = data(seed)
        return x, scale * y + offset

    return changed


def standardised(x):
    return (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)


def mlp(features, *layers, optimizer=None, loss="mse"):
    model = K.Sequential([K.Input((features,)), *layers])
    model.compile(K.optimizers.Adam(0.01) if optimizer is None else optimizer, loss)
    return model


def classifier(*layers, inputs=(64,), rate=0.01, optimizer=None):
    """A classifier of the digits that ends in a softmax."""
    model = K.Sequential([K.Input(inputs), *layers, L.Dense(10, "softmax")])
    model.compile(optimizer or K.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    return model


def regression(model, x, y, standard_targets=False, **options):
    """A regression. With `standard_targets` it is trained on targets of mean 0 and deviation 1, and judged on those as they were."""
    chance = float(np.mean(y.var(axis=0)))
    if not standard_targets:
        return Training(model, x, y, chance=chance, **options)
    center, scale = y.mean(axis=0), y.std(axis=0)

    def loss(trained: Any) -> float:
        return float(np.mean((np.asarray(trained(x)) * scale + center - y) ** 2))

    return Training(model, x, standardised(y).astype("float32"), chance=chance, loss=loss, **options)


# --- references -------------------------------------------------------------------------------------------------------


@lru_cache(None)
def usual(
    data: Data, *widths: int, activation: str = "relu", epochs: int = 20, batch_size: int = 32
) -> Callable[[int], Training]:
    """The reference of a regression: columns and targets standardised, He initialisation, a linear output, Adam at 0.01.

    The loss is that of the targets as they were.

    Args:
        data: `data(seed) -> (x, y)`.
        widths: those of the hidden layers of the sick network.
        activation: of the hidden layers; others than a ReLU are initialised as Keras does by default.
        epochs, batch_size: as the sick network is trained.
    """

    def train(seed: int) -> Training:
        x, y = data(seed)
        kernel = "he_normal" if activation == "relu" else "glorot_uniform"
        hidden = [L.Dense(width, activation, kernel_initializer=kernel) for width in widths]
        model = mlp(x.shape[1], *hidden, L.Dense(y.shape[1]))
        inputs = standardised(x.astype("float64")).astype("float32")
        options: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "has_relu": activation == "relu"}
        return regression(model, inputs, y, standard_targets=True, **options)

    return train


@lru_cache(None)
def usual_classifier(*widths: int, filters: int = 0, samples: int = 500, epochs: int = 20) -> Callable[[int], Training]:
    """The reference of a classifier of the digits: standardised pixels, He initialisation, Adam at 0.01.

    Args:
        widths: those of the hidden layers of the sick network.
        filters: those of its convolution, 0 without one.
        samples, epochs: of the sick training.
    """

    def train(seed: int) -> Training:
        x, y = digits(samples=samples)
        x = standardised(x)
        hidden = [L.Dense(width, "relu", kernel_initializer="he_normal") for width in widths]
        if filters:
            conv = L.Conv2D(filters, 3, activation="relu", kernel_initializer="he_normal")
            hidden = [L.Reshape((8, 8, 1)), conv, L.Flatten(), *hidden]
        return Training(classifier(*hidden), x, y, epochs=epochs, chance=LN_10)

    return train
