"""Bit-by-bit comparison of trainings with and without a callback: weights, optimizer state, History."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from models import sequential

K, L = tf.keras, tf.keras.layers
KERAS3 = hasattr(K, "ops")
Trained = dict[str, list[np.ndarray]]


def data(samples: int = 24, inputs: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs `(samples, inputs)` and their sums `(samples, 1)`."""
    x = np.random.default_rng(0).standard_normal((samples, inputs)).astype("float32")
    return x, x.sum(1, keepdims=True)


def net(*, name: str = "hidden", rate: float = 0.01, **compile_args: Any) -> Any:
    """Returns a 4-6-1 model with the initial weights of one seed."""
    K.utils.set_random_seed(1)
    return sequential(4, L.Dense(6, "relu", name=name), L.Dense(1), optimizer=K.optimizers.Adam(rate), **compile_args)


def fitted(model: Any, callbacks: list[Any], x: Any = None, y: Any = None, **fit_args: Any) -> Trained:
    """Returns the weights, optimizer state and History after a fit."""
    x, y = data() if x is None else (x, y)
    fit_args = {"verbose": 0, "epochs": 2, "batch_size": 8, **fit_args}
    history = model.fit(x, y, callbacks=callbacks, **fit_args).history
    own = {
        key: value
        for key, value in history.items()
        if not key.endswith(("dead_fraction", "zero_gradient_fraction", "nan_fraction"))
    }
    return {"history": [np.asarray(own[key]) for key in sorted(own)], **state(model)}


def state(model: Any) -> Trained:
    """Returns the weights and optimizer state of a model."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return {
        "weights": [np.asarray(w) for w in model.get_weights()],
        "optimizer": [np.asarray(tf.convert_to_tensor(v)) for v in optimizer.variables],
    }


def clean(model: Any) -> bool:
    """Whether the probe left nothing on the model or its layers."""
    ours = [model.train_function, model.__dict__.get("train_step"), *(layer.call for layer in model.layers)]
    return not [part for part in ours if "relu_probe" in f"{part!r} {getattr(part, '__module__', '')}"]


def same(a: Trained, b: Trained) -> bool:
    """Whether two trainings are equal bit by bit."""
    return all(
        len(a[part]) == len(b[part]) and all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a[part], b[part]))
        for part in a
    )


def assert_no_harm(train: Callable[[list[Any]], Trained], callbacks: list[Any]) -> None:
    """The training with these callbacks equals one without them.

    Threads may add a large sum in another order, so that two trainings without callbacks may differ. Then up to three more
    are run, and the watched one must equal one of them. If it equals none, nothing is known about the callback: that is a
    failure too, of a test that compares nothing.
    """
    plain, watched = train([]), train(callbacks)
    assert any(w.size for w in plain["weights"])
    if same(plain, watched):
        return
    others = [train([]) for _ in range(3)]
    assert not all(same(plain, other) for other in others), "the callback changed the training"
    assert any(same(watched, other) for other in others), "trainings without the callback differ: nothing was compared"


class Interrupt(K.callbacks.Callback):
    """Raises KeyboardInterrupt when the epoch `at` begins."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            raise KeyboardInterrupt
