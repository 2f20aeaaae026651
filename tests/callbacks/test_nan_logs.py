"""NaN in Keras's `logs`: what History and other callbacks get when the weights of a dead model turn NaN."""

import csv

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe

K, L = tf.keras, tf.keras.layers
X, Y = np.ones((8, 2), "f"), np.ones((8, 1), "f")


class DestroyWeights(K.callbacks.Callback):
    """Makes every neuron dead at first, and every weight NaN at the beginning of epoch 2."""

    def on_epoch_begin(self, epoch, logs=None):
        value = np.nan if epoch >= 2 else -1
        self.model.set_weights([np.full(weight.shape, value) for weight in self.model.get_weights()])


def fit(probe, *others, epochs=4):
    model = sequential(2, L.Dense(3, "relu", name="hidden"), L.Dense(1), optimizer=K.optimizers.SGD(0.0))
    return model.fit(X, Y, epochs=epochs, verbose=0, callbacks=[DestroyWeights(), probe, *others]).history


@pytest.mark.parametrize("data", [None, (X, Y)], ids=["train", "data"])
def test_a_destroyed_model_does_not_seem_to_recover(data, tmp_path):
    probe, log, best = ReluProbe(data=data), tmp_path / "log.csv", tmp_path / "best.weights.h5"
    checkpoint = K.callbacks.ModelCheckpoint(
        str(best), monitor="dead_fraction", mode="min", save_best_only=True, save_weights_only=True
    )
    history = fit(probe, K.callbacks.CSVLogger(str(log)), checkpoint)
    np.testing.assert_array_equal(history["dead_fraction"], [1, 1, np.nan, np.nan])
    np.testing.assert_array_equal(history["zero_gradient_fraction"], [1, 1, np.nan, np.nan])
    assert history["nan_fraction"] == [0, 0, 1, 1]
    assert all(type(value) is float for value in history["nan_fraction"])
    assert not probe.report.dead_fraction < 0.05
    rows = list(csv.DictReader(log.read_text().splitlines()))
    for name in ("dead_fraction", "zero_gradient_fraction", "nan_fraction"):
        np.testing.assert_array_equal([float(row[name]) for row in rows], history[name])
    assert best.exists()


def test_early_stopping_takes_nan_for_no_improvement():
    stopper = K.callbacks.EarlyStopping(monitor="dead_fraction", mode="min", patience=2)
    assert len(fit(ReluProbe(), stopper, epochs=6)["loss"]) == 3


def test_every_epoch_has_the_key_also_where_nothing_was_measured():
    assert len(fit(ReluProbe(freq=2), epochs=3)["nan_fraction"]) == 3
    assert "val_nan_fraction" in fit(ReluProbe(name="val"), epochs=1)


def test_limits_fail_on_nan():
    """Dead neurons are within this limit."""
    probe = ReluProbe(max_dead=1.0)
    assert len(fit(probe)["loss"]) == 4  # a limit of 1 allows everything
    history = fit(ReluProbe(max_zero_gradient=0.9, on_limit="stop", patience=2), epochs=6)
    assert len(history["loss"]) == 3
    with pytest.raises(AssertionError, match="hidden: 3 of 3 NaN"):
        probe.report.assert_alive()
