"""The data, models and training of the demo: handwritten digits and several bias initialisers."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from relu_probe.callbacks.relu_probe import ReluProbe
from relu_probe.callbacks.revive import Revive
from relu_probe.cli.findings import CONTROL, REVIVED, SUBJECT, Outcome
from relu_probe.report.report import Report

RUNS = (SUBJECT, "random_normal", "custom_uniform", REVIVED, CONTROL)


class Digits(NamedTuple):
    """Training and validation data, each `(x, y)`: x `(samples, 784)` float32 in [0, 1], y `(samples, 10)` one-hot."""

    train: tuple[Any, Any]
    validation: tuple[Any, Any]


def load(seed: int = 0) -> Digits:
    """The 1,797 digits that come with scikit-learn, enlarged from 8 x 8 to 28 x 28; a fifth is kept for validation.

    Each pixel becomes a square of 3 x 3 pixels, and the image gets a black border of 2 pixels.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 8, 8).repeat(3, axis=1).repeat(3, axis=2)
    x = np.pad(images, ((0, 0), (2, 2), (2, 2))).reshape(-1, 28 * 28)
    y = np.eye(10, dtype=np.float32)[labels]
    x, x_validation, y, y_validation = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=labels)
    return Digits((x, y), (x_validation, y_validation))


def bias_initialiser(name: str, seed: int) -> Any:
    """The initialiser of the bias in the run of this name. The control's puts every pre-activation far below zero."""

    def custom_uniform(shape: Any, dtype: Any = None) -> Any:
        return tf.random.stateless_uniform(shape, (seed, 0), -0.1, 0.1, dtype or tf.float32)

    return {
        SUBJECT: tf.keras.initializers.Zeros(),
        REVIVED: tf.keras.initializers.Zeros(),
        "random_normal": tf.keras.initializers.RandomNormal(seed=seed),
        "custom_uniform": custom_uniform,
        CONTROL: tf.keras.initializers.Constant(-5.0),
    }[name]


def build(bias: Any, seed: int) -> Any:
    """A compiled 784-64(relu)-10(softmax) model. Its kernels depend on the seed only, so they are equal for every bias."""
    kernels = [tf.keras.initializers.GlorotUniform(seed=2 * seed + layer) for layer in range(2)]
    hidden = tf.keras.layers.Dense(64, "relu", kernel_initializer=kernels[0], bias_initializer=bias, name="hidden")
    classes = tf.keras.layers.Dense(10, "softmax", kernel_initializer=kernels[1], name="classes")
    model = tf.keras.Sequential([tf.keras.Input((28 * 28,)), hidden, classes])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def train(name: str, digits: Digits, log_dir: str, *, epochs: int, seed: int, tick: Callable[[int], None]) -> Outcome:
    """Trains the model of one run.

    Args:
        name: one of `RUNS`; also the name of the run in TensorBoard.
        digits: the data.
        log_dir: the directory for TensorBoard. The run of the probe is `{name}/relu_probe`; the run `name` has the initialiser, so
            that the page HParams compares the trainings.
        epochs: the number of epochs.
        seed: the seed of the weights and of the order of the samples.
        tick: called with 0 before the training, and with n after the n-th epoch.

    Returns:
        The outcome. Step 0 of the TensorBoard run, and epoch 0 of the outcome, is the initialisation; n is the end of the
        n-th epoch.
    """
    tf.keras.utils.set_random_seed(seed)  # the same order of the samples for every initialiser
    model = build(bias_initialiser(name, seed), seed)
    run = os.path.join(log_dir, name)
    probe = ReluProbe(run, data=digits.train, strict=True)

    def at_start(logs: Any) -> None:  # measures the untrained model, as epoch 0
        tick(0)
        probe.on_epoch_begin(0)
        probe.on_epoch_end(0)

    hyperparameters = {"bias_initializer": SUBJECT if name == REVIVED else name, "revive": name == REVIVED}
    callbacks = [
        probe,
        hparams.KerasCallback(run, hyperparameters),
        tf.keras.callbacks.LambdaCallback(on_train_begin=at_start, on_epoch_end=lambda epoch, logs: tick(epoch)),
    ]
    if name == REVIVED:
        callbacks.append(Revive(digits.train, seed=seed, strict=True))
    _, untrained = model.evaluate(*digits.validation, verbose=0)
    plan = {"initial_epoch": 1, "epochs": epochs + 1, "validation_data": digits.validation}
    history = model.fit(*digits.train, **plan, callbacks=callbacks, verbose=0).history
    return _outcome(probe.reports, [untrained, *history["val_accuracy"]], digits)


def _outcome(reports: list[Report], accuracy: list[float], digits: Digits) -> Outcome:
    layers = [report["hidden"] for report in reports]
    return Outcome(
        neurons=layers[0].neurons,
        samples=layers[0].samples,
        validated=len(digits.validation[0]),
        dead=[int(np.sum(layer.dead)) for layer in layers],
        zero_gradient=[round(layer.zero_gradient_fraction * layer.neurons) for layer in layers],
        accuracy=accuracy,
    )
