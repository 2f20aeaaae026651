"""Does a callback change a training? Weights, optimizer state and History, bit by bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

K, L = tf.keras, tf.keras.layers
KERAS3 = hasattr(K, "ops")
Trained = dict[str, list[np.ndarray]]


def data(samples: int = 24, inputs: int = 4) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((samples, inputs)).astype("float32")
    return x, x.sum(1, keepdims=True)


def net(*, name: str = "hidden", rate: float = 0.01, **compile_args: Any) -> Any:
    """4-6-1, as it begins from one seed."""
    K.utils.set_random_seed(1)
    model = K.Sequential([K.Input((4,)), L.Dense(6, "relu", name=name), L.Dense(1)])
    model.compile(K.optimizers.Adam(rate), "mse", **compile_args)
    return model


def fitted(model: Any, callbacks: list[Any], x: Any = None, y: Any = None, **fit_args: Any) -> Trained:
    """What a fit leaves: weights, optimizer state, History."""
    x, y = data() if x is None else (x, y)
    fit_args = {"verbose": 0, "epochs": 2, "batch_size": 8, **fit_args}
    history = model.fit(x, y, callbacks=callbacks, **fit_args).history
    own = {
        key: value for key, value in history.items() if not key.endswith(("dead_fraction", "zero_gradient_fraction"))
    }
    return {"history": [np.asarray(own[key]) for key in sorted(own)], **state(model)}


def state(model: Any) -> Trained:
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return {
        "weights": [np.asarray(w) for w in model.get_weights()],
        "optimizer": [np.asarray(tf.convert_to_tensor(v)) for v in optimizer.variables],
    }


def clean(model: Any) -> bool:
    """Whether nothing of ours is left on it."""
    ours = [model.train_function, model.__dict__.get("train_step"), *(layer.call for layer in model.layers)]
    return not [part for part in ours if "relu_probe" in f"{part!r} {getattr(part, '__module__', '')}"]


def same(a: Trained, b: Trained) -> bool:
    return all(
        len(a[part]) == len(b[part]) and all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a[part], b[part]))
        for part in a
    )


def assert_no_harm(train: Callable[[list[Any]], Trained], callbacks: list[Any]) -> None:
    """`train(callbacks)` is as `train([])`, or as another one: threads may add a large sum up in another order.

    Where two trainings without callbacks differ and the watched one is like none of them, nothing can be said of the
    callback, and that is a failure of its own: of a test that compares nothing.
    """
    plain, watched = train([]), train(callbacks)
    assert any(w.size for w in plain["weights"])
    if same(plain, watched):
        return
    others = [train([]) for _ in range(3)]
    assert not all(same(plain, other) for other in others), "the callback changed the training"
    assert any(same(watched, other) for other in others), "trainings without the callback differ: nothing was compared"


class Interrupt(K.callbacks.Callback):
    def __init__(self, at):
        super().__init__()
        self.at = at

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            raise KeyboardInterrupt
