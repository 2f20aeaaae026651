"""Deaths in a training step of the user's that returns no loss are dated by the size of the updates."""

import copy
import pickle

import numpy as np
import pytest
import tensorflow as tf

from relu_probe import ReluProbe, diagnose

K, L = tf.keras, tf.keras.layers
BAD_STEP = 33


class Silent(K.Model):
    """A model whose training step returns one number, under a name that it is told."""

    def __init__(self, returned):
        super().__init__()
        self.returned = returned
        self.hidden = L.Dense(16, "relu", kernel_initializer=K.initializers.RandomUniform(0.1, 0.5, seed=0))
        self.out = L.Dense(1, kernel_initializer=K.initializers.GlorotUniform(seed=1))

    def call(self, x):
        return self.out(self.hidden(x))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {self.returned: loss}


class OneBadStep(K.callbacks.Callback):
    """A learning rate that is far too high at a single step."""

    def __init__(self, rate):
        super().__init__()
        self.rate, self.done = rate, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate.assign(self.rate if self.done == BAD_STEP else 0.01)
        self.done += 1


def data():
    x = np.random.default_rng(0).random((80, 4), np.float32)
    return x, x.sum(axis=1, keepdims=True)


def trained(*probes, rate=100.0, returned="accuracy"):
    x, y = data()
    model = Silent(returned)
    model(x[:1])
    model.compile(K.optimizers.SGD(0.01), "mse")
    model.fit(x, y, batch_size=8, epochs=5, verbose=0, shuffle=False, callbacks=[*probes, OneBadStep(rate)])
    return model


def test_deaths_are_dated_by_the_jump_of_the_update():
    probe = ReluProbe(strict=True)
    found = diagnose(trained(probe), data(), probe=probe)
    largest = max(probe.loss_jumps, key=lambda jump: jump.ratio)
    assert (largest.quantity, largest.step) == ("size of the update", BAD_STEP)
    assert found.advice[0].kind == "learning_rate"
    assert "and at step 33 the size of the update jumped from" in " ".join(str(found).split())


def test_without_a_bad_step_the_rate_is_not_blamed():
    probe = ReluProbe(strict=True)
    assert diagnose(trained(probe, rate=0.01), data(), probe=probe).advice == ()
    assert all(jump.ratio < 5 for jump in probe.loss_jumps)


def test_a_loss_that_is_returned_is_preferred():
    probe = ReluProbe(strict=True)
    trained(probe, returned="my_loss")
    assert {jump.quantity for jump in probe.loss_jumps} == {"loss"}


def test_the_training_is_the_same_with_the_probe():
    with_probe, without = (trained(*probes, rate=0.01) for probes in ((ReluProbe(strict=True),), ()))
    for ours, theirs in zip(with_probe.get_weights(), without.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_the_size_is_that_of_the_step():
    """NumPy's norm of what two known updates move; the model is small, so that the sample is all of it."""
    from relu_probe.callbacks.update_size import UpdateSize

    model, size = trained(rate=0.01), UpdateSize()
    assert size.take(model) is None
    for step in (0.5, 0.25):
        for weight in model.trainable_variables:
            weight.assign_add(tf.fill(weight.shape, step))
        assert float(size.take(model)) == pytest.approx(step * np.sqrt(model.count_params()), rel=1e-5)


def test_a_probe_that_measured_updates_can_be_copied():
    probe = ReluProbe(strict=True)
    trained(probe)
    assert copy.deepcopy(probe).loss_jumps == pickle.loads(pickle.dumps(probe)).loss_jumps == probe.loss_jumps
