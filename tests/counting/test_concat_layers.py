"""Tests of concatenated layers: only layers of one batch are concatenated, and their counts do not change."""

from contextlib import nullcontext

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe, measure
from relu_probe.counting import concat_layers, counter_block, kernels, layer_reports, step_totals
from relu_probe.measuring.train_step import training_counters

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).standard_normal((10, 3, 4)).astype("float32")


def plain():
    x = K.Input((3, 4))
    hidden = L.Dense(6, "relu", name="a")(L.Flatten()(x))
    hidden = L.Dense(5, "relu", name="b")(L.Dropout(0.5)(hidden))
    hidden = L.Dense(4, "relu", name="c")(L.BatchNormalization()(hidden))
    return K.Model(x, L.Dense(1)(L.Dense(3, "relu6", name="d")(hidden)))


class Folded(L.Layer):
    """Folds the time axis into the batch axis, so that the inner layer sees three times as many samples."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(5, "relu", name="folded")

    def build(self, shape):
        self.dense.build((None, 4))
        self.built = True

    def call(self, x):
        return tf.reshape(self.dense(tf.reshape(x, (-1, 4))), (-1, 15))


def folded():
    x = K.Input((3, 4))
    return K.Model(
        x, L.Dense(1)(L.Dense(6, "relu", name="a")(Folded()(x)) + L.Dense(6, "relu", name="b")(L.Flatten()(x)))
    )


def halves():
    x = K.Input((3, 4))
    first, rest = L.Lambda(lambda t: t[:, 0][:1])(x), L.Lambda(lambda t: t[:, 0])(x)
    return K.Model(x, L.Dense(1)(L.Dense(6, "relu", name="one")(first) + L.Dense(6, "relu", name="all")(rest)))


def counted(build, monkeypatch, narrow):
    """Fits one epoch with a learning rate of 0. Returns the report, the model and its counters."""
    monkeypatch.setattr(concat_layers, "NARROW", narrow)
    K.utils.set_random_seed(1)
    model = build()
    model.compile(K.optimizers.SGD(0.0), "mse")
    probe = ReluProbe(strict=True)
    model.fit(X, np.ones((10, 1)), batch_size=4, verbose=0, shuffle=False, callbacks=[probe])
    return probe.report, model, training_counters(model)


@pytest.mark.parametrize("build", [plain, folded, halves])
def test_concatenation_does_not_change_the_counts(build, monkeypatch):
    concatenated, _, _ = counted(build, monkeypatch, 128)
    separate, model, _ = counted(build, monkeypatch, 0)
    assert concatenated == separate
    if build is folded:  # has no Dropout, and its number of samples does not depend on the batch size
        measured = measure(model, (X, np.ones((10, 1))))
        assert all(np.array_equal(concatenated[name].active, measured[name].active) for name in measured)
        assert all(np.array_equal(concatenated[name].with_gradient, measured[name].with_gradient) for name in measured)


def test_only_layers_of_one_batch_are_concatenated(monkeypatch):
    """The planted mistake concatenates all narrow layers; the training step of `folded` then fails."""
    assert counted(folded, monkeypatch, 128)[0]["folded"].positions == 30
    monkeypatch.setattr(concat_layers, "origin_of_rows", lambda tensor: tf)
    K.utils.set_random_seed(1)
    model = folded()
    model.compile(K.optimizers.SGD(0.0), "mse")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Dimension"):
        model.fit(X, np.ones((10, 1)), batch_size=4, verbose=0, callbacks=[ReluProbe()])


def test_a_step_with_more_samples_than_float32_can_count():
    """With 2**24 + 3 rows, a float32 counter would stop at 2**24."""
    rows = 2**24 + 3
    model = K.Sequential([K.Input((1,)), L.Dense(1, "relu", kernel_initializer="ones", name="a")])
    known = tf.data.Dataset.from_tensors(tf.ones((rows, 1)))
    unknown = tf.data.Dataset.from_tensors(rows).map(lambda n: tf.ones((n, 1)))
    assert measure(model, known)["a"].active.tolist() == measure(model, unknown)["a"].active.tolist() == [rows]


@pytest.mark.parametrize(("rows", "why"), [(10, ""), (11, "more than 10 samples in one step")])
def test_counting_in_floats_refuses_too_many_samples(rows, why, monkeypatch):
    """Simulates a GPU on which floats are exact up to 10: a batch of 2**24 samples for 129 neurons would take 9 GB."""
    for module in (layer_reports, kernels, step_totals):
        monkeypatch.setattr(module, "EXACT", 10)
    for module in (counter_block, kernels):
        monkeypatch.setattr(module, "on_gpu", lambda: True)
    model = sequential(2, L.Dense(129, "relu", name="a"), L.Dense(1))
    x = np.ones((2 * rows + 1, 2), np.float32)  # if there were one batch only, Keras would know its size
    with pytest.warns(UserWarning, match=why) if why else nullcontext():
        model.fit(x, x[:, :1], batch_size=rows, verbose=0, callbacks=[probe := ReluProbe()])
    assert why or set(probe.report["a"].active) == {0, 2 * rows + 1}
