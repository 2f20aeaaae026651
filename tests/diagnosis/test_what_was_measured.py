"""What a diagnosis says of the training, of its data and of N follows from what was measured, and from nothing else."""

import re

import numpy as np
import pytest
import tensorflow as tf
from models import sequential
from parts import BesideAThread

from relu_probe import ReluProbe, diagnose
from relu_probe.report.loss_jumps import LossJumpTracker

K, L = tf.keras, tf.keras.layers
X = np.abs(np.random.default_rng(0).normal(size=(64, 4))).astype("f")
Y = X[:, :1]


def net():
    """8 neurons that fire on positive inputs, and weights that do not change."""
    model = sequential(4, L.Dense(8, "relu", name="hidden"), L.Dense(1), optimizer=K.optimizers.SGD(0.0))
    model.layers[0].set_weights([np.ones((4, 8)), np.zeros(8)])
    return model


class Kill(K.callbacks.Callback):
    """Kills three neurons at the beginning of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.layers[0].set_weights([np.ones((4, 8)), np.array([-99.0] * 3 + [0.0] * 5)])


def said(model, data, probe=None):
    return " ".join(str(diagnose(model, data, probe=probe)).split())


@pytest.mark.parametrize("data", [None, (X, Y)], ids=["train", "data"])
@pytest.mark.parametrize("epochs", [2, 30])
def test_neurons_that_fired_to_the_end_of_the_training_did_not_die_in_it(epochs, data):
    """They are dead on other data. The planted mistake is to take every neuron that ever fired for one that died."""
    model, probe = net(), ReluProbe(data=data)
    model.fit(X, Y, epochs=epochs, verbose=0, callbacks=[probe])
    assert not probe.report["hidden"].dead.any()
    text = said(model, (-X, Y), probe)
    assert "hidden: 8 of 8 neurons dead" in text
    assert not re.search("died|fired earlier|Lower the learning rate", text)


def test_neurons_that_stopped_firing_in_the_last_epoch_died_in_it():
    model, probe = net(), ReluProbe()
    killer = Kill(0)
    kill = K.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: batch == 5 and killer.on_epoch_begin(0))
    killer.set_model(model)
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[probe, kill])
    assert not probe.report["hidden"].dead.any()
    assert "3 neurons died in the first 20 steps of the training." in said(model, (X, Y), probe)


def killed_at(epoch, **options):
    """What is said of the dates of three deaths."""
    model, probe = net(), ReluProbe(**options)
    model.fit(X, Y, epochs=5, verbose=0, callbacks=[probe, Kill(epoch)])
    return re.search(r"hidden: (.*?)\.", said(model, (X, Y), probe))[1], probe


@pytest.mark.parametrize(
    ("epoch", "options", "words"),
    [
        (3, {"data": (X, Y)}, "3 died in epoch 3"),
        (3, {"data": (X, Y), "freq": 2}, "3 died in one of the epochs 3 to 4"),
        (3, {"freq": 2}, "3 died after training step 5, so that they are dead in all of epoch 4"),
        (0, {"data": (X, Y)}, "3 never seen active in this fit"),  # they may have fired in its first steps
        (0, {"freq": 2}, "3 never seen active in this fit"),  # or in an epoch that was not counted
        (0, {}, "3 never active in this fit"),
        (0, {"data": (X, Y), "at_start": True}, "3 died in epoch 0"),
    ],
)
def test_dates_are_as_exact_as_the_reports(epoch, options, words):
    assert killed_at(epoch, **options)[0] == words


def test_the_line_at_the_end_of_a_fit_does_not_say_that_neurons_were_dead_from_the_start(capsys):
    killed_at(0, data=(X, Y), verbose=1)
    assert (
        "relu_probe: 37.5 % of 8 ReLU neurons dead, worst hidden (37.5 %, never seen active)" in capsys.readouterr().out
    )


class Routed(K.Model):
    """A dead layer that sees the first two samples of each batch only."""

    def __init__(self):
        super().__init__()
        self.all, self.out = L.Dense(4, "relu", bias_initializer="ones", name="all"), L.Dense(1)
        self.few = L.Dense(4, "relu", bias_initializer=K.initializers.Constant(-99.0), name="few")

    def call(self, x):
        return self.out(self.all(x)) + tf.reduce_sum(self.few(x[:2]))


def test_a_layer_that_sees_fewer_samples_is_dead_on_those():
    model = Routed()
    model(X)
    model.compile("sgd", "mse")
    text = said(model, (X, Y))
    assert "few: 4 of 4 neurons dead, 0 blocked, on 4 samples." in text
    assert f"a dead neuron fires on less than {100 * (1 - 0.05 ** (1 / 4)):.4g} % of samples" in text  # 1/64: 4.573 %


def test_a_layer_whose_calls_are_not_visible_is_dead_on_its_samples():
    """Another thread calls it too, so that the diagnosis sees nothing but its counts."""
    model = sequential(4, BesideAThread(8), L.Dense(1))
    dead = next(layer for layer in model.layers[0]._flatten_layers() if hasattr(layer, "kernel"))
    dead.set_weights([np.ones(dead.kernel.shape), np.full(dead.bias.shape, -99.0)])
    found = diagnose(model, (X, Y))
    assert found.report.dead_fraction == 1
    assert "a dead neuron fires on less than 4.573 % of samples" in " ".join(str(found).split())  # not on 100 %


def test_the_range_of_data_with_a_nan_is_that_of_the_other_values():
    x = np.linspace(-1, 3, 200).reshape(50, 4).astype("f")
    x[1, 2] = np.nan
    text = " ".join(str(diagnose(net(), (x, x[:, :1]), bounds=(0, 1))).split())
    assert "The data reaches from -1 to 3, outside of the bounds" in text
    assert "The data reaches" not in str(diagnose(net(), (x * np.nan, x[:, :1]), bounds=(0, 1)))


def jump_of(losses):
    """The largest jump of losses in one epoch."""
    jumps = LossJumpTracker()
    jumps.begin_epoch()
    for step, mean in enumerate(np.cumsum(losses) / np.arange(1, len(losses) + 1)):
        jumps.see(step + 1, mean)
    return jumps.found[-1]


@pytest.mark.parametrize(
    ("losses", "risen"),
    [
        ([1.0, 1.01, 0.99, 1.02, np.nan], False),  # as losses differ from step to step
        ([1.0, np.nan], False),
        ([1.0, 2.5, np.nan], True),
        ([4.0, 1.0, 3.0, 9.0, 80.0, np.nan], True),
        ([4.0, 1.0, 9.0, 0.5, 0.6, np.inf], False),
    ],
)
def test_a_loss_rose_before_it_was_lost_if_finite_losses_show_it(losses, risen):
    jump = jump_of(losses)
    assert jump.is_large
    assert jump.is_large_rise == risen


def test_weights_that_turn_nan_by_themselves_are_not_blamed_on_the_rate():
    class Lose(K.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.set_weights([weight * np.nan for weight in self.model.get_weights()])

    model, probe = net(), ReluProbe()
    model.fit(X, Y, batch_size=8, epochs=3, verbose=0, callbacks=[probe, Lose()])
    found = diagnose(model, (X, Y), probe=probe)
    assert [advice.kind for advice in found.advice] == ["nan_weights"]


def test_what_is_frozen_without_a_path_is_not_called_unlabelled():
    x = K.Input((4,))
    encoder = L.Dense(3, "relu", name="encoder", bias_initializer="ones")
    y = L.Lambda(tf.stop_gradient)(encoder(x))
    model = K.Model(x, L.Dense(1)(L.Dense(3, "relu", name="head", bias_initializer="ones")(y)))
    encoder.trainable = False
    model.compile("sgd", "mse")
    text = said(model, (X, Y))
    assert "Healthy" not in text
    words = "blocked neurons were not looked for: it is frozen, and no path leads to it from the loss."
    assert f"encoder: {words}" in text
    alone = K.Model(x, L.Dense(1)(y))
    alone.compile("sgd", "mse")
    assert words.capitalize() in said(alone, (X, Y))
    assert "labels" not in said(alone, (X, Y))
