"""`Revive` in a fit: when it acts, what it logs, and that it harms nothing."""

import csv
import subprocess
import sys
from copy import deepcopy

import harm
import numpy as np
import pytest
import tensorflow as tf
from event_files import points
from models import sequential

from relu_probe import ReluProbe, Revive, measure

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).standard_normal((200, 3)).astype("float32")
Y = X.sum(1, keepdims=True)


class Kill(K.callbacks.Callback):
    """Kills neuron `epoch % 4` of the hidden layer at the beginning of each epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        kernel, bias = self.model.get_layer("hidden").get_weights()
        bias[epoch % 4] = -1000
        self.model.get_layer("hidden").set_weights([kernel, bias])


def net(**options):
    K.utils.set_random_seed(1)
    return sequential(3, L.Dense(4, "relu", name="hidden"), L.Dense(1), optimizer=K.optimizers.Adam(0.01), **options)


def fit(model, *callbacks, epochs=4, **options):
    options = {"verbose": 0, "batch_size": 50, **options}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options).history


def test_neurons_that_die_in_an_epoch_come_back_at_its_end():
    model, revive = net(), Revive((X, Y))
    assert fit(model, Kill(), revive)["revived"] == [1.0] * 4
    assert [revive.revivals[epoch].layers["hidden"].neurons.tolist() for epoch in range(4)] == [[0], [1], [2], [3]]
    assert measure(model, X).dead_fraction == 0
    fit(model, revive, epochs=1)
    assert [revival.revived for revival in revive.revivals.values()] == [0]  # a new fit forgets the last


@pytest.mark.parametrize(
    ("when", "epochs"),
    [({}, [0, 1, 2, 3, 4, 5]), ({"every": 2}, [0, 2, 4]), ({"start": 1, "every": 3}, [1, 4]), ({"stop": 2}, [0, 1])],
)
def test_the_epochs_in_which_it_acts(when, epochs):
    revive = Revive((X, Y), **when)
    history = fit(net(), Kill(), revive, epochs=6)
    assert list(revive.revivals) == epochs
    assert [bool(count) for count in history["revived"]] == [epoch in epochs for epoch in range(6)]


def test_logs_get_a_plain_float_in_every_epoch(tmp_path):
    class Types(K.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            assert type(logs["revived"]) is float

    path = tmp_path / "log.csv"
    fit(net(), Kill(), Revive((X, Y), every=2), Types(), K.callbacks.CSVLogger(str(path)))
    assert [float(row["revived"]) for row in csv.DictReader(path.read_text().splitlines())] == [1, 0, 2, 0]


def test_a_function_of_the_epoch_gives_the_data():
    asked = []

    def newest(epoch):
        asked.append(epoch)
        return X[:150], Y[:150]

    revive = Revive(newest, start=1)
    fit(net(), Kill(), revive, epochs=3)
    assert asked == [1, 2]
    assert revive.revivals[1].before.samples == 150


def test_tensorboard_gets_the_numbers_through_the_probes_writer(tmp_path):
    fit(net(), Kill(), ReluProbe(tmp_path), Revive((X, Y), every=2))
    assert points(tmp_path / "relu_probe")["revived_by_us/hidden"] == [(0, 1), (2, 2)]


def test_a_report_of_the_probe_shows_the_neurons_that_died_before_they_came_back():
    probe = ReluProbe(data=(X, Y))
    fit(net(), Kill(), probe, Revive((X, Y)))
    assert [report.dead_fraction for report in probe.reports] == [0.25] * 4


@pytest.mark.parametrize("options", [{"steps_per_execution": 2}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_ways_of_training(options):
    assert fit(net(**options), Kill(), Revive((X, Y)))["revived"] == [1.0] * 4


def test_a_fit_that_finds_nothing_to_revive_is_bit_identical_to_one_without_it():
    def train(callbacks):
        model = net()
        model.get_layer("hidden").bias.assign(tf.ones(4) * 3)
        assert fit(model, *callbacks).get("revived", [0.0])[-1] == 0
        return harm.state(model)

    harm.assert_no_harm(train, [Revive((X, Y))])


def test_the_weights_that_are_drawn_depend_on_seed_epoch_and_layer_alone():
    def weights(seed, first=0):
        model = net()
        kernel, bias = model.get_layer("hidden").get_weights()
        model.get_layer("hidden").set_weights([kernel * 0, bias - 1])
        tf.random.normal((3,))  # moves the global generator
        model.optimizer.learning_rate = 0.0
        model.fit(X, Y, initial_epoch=first, epochs=first + 1, verbose=0, callbacks=[Revive((X, Y), seed=seed)])
        return model.get_layer("hidden").get_weights()[0].tolist()

    assert weights(1) == weights(1)
    assert weights(1) != weights(2)
    assert weights(1) != weights(1, first=1)
    assert weights(None) == weights(0)


class Stop(K.callbacks.Callback):
    """Raises at the beginning of an epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise ZeroDivisionError


def test_resumed_by_backup_and_restore_it_does_what_it_would_have_done(tmp_path):
    whole = net()
    fit(whole, Kill(), Revive((X, Y)), epochs=5, shuffle=False)
    for stop in ([Stop()], []):
        model = net()
        backup = K.callbacks.BackupAndRestore(str(tmp_path / "backup"))
        try:
            fit(model, Kill(), Revive((X, Y)), backup, *stop, epochs=5, shuffle=False)
        except ZeroDivisionError:
            continue
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), model.get_weights()))


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_failure_does_not_stop_the_training_and_is_told_once():
    def data(epoch):
        if epoch == 1:
            raise OSError("the disk is gone")
        return X, Y

    model, revive = net(), Revive(data)
    with pytest.warns(UserWarning, match="relu_probe: reviving stopped: OSError: the disk is gone") as caught:
        history = fit(model, Kill(), revive)
    assert len(caught) == 1
    assert history["revived"] == [1.0, 0.0, 0.0, 0.0]
    with pytest.raises(OSError, match="gone"):
        fit(model, Kill(), Revive(data, strict=True))


def test_what_is_wrong_is_told_before_the_first_step():
    model = net()
    before = model.get_weights()
    with pytest.raises(ValueError, match="data has 20 samples; expected at least 86"):
        fit(model, Revive((X[:20], Y[:20])))
    with pytest.raises(ValueError, match="matches no layer of the model"):
        fit(model, Revive((X, Y), layers="other"))
    model.compile(K.optimizers.Adafactor(0.01), "mse")
    with pytest.raises(ValueError, match="the optimizer Adafactor keeps state of which it is not known"):
        fit(model, Revive((X, Y)))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every is 0; expected a whole number >= 1"),
        ({"start": -1}, "start is -1; expected the number of an epoch, counted from 0"),
        ({"stop": 1.5}, "stop is 1.5; expected the number of an epoch, counted from 0"),
        ({"fire": 2}, "fire is 2; expected a share between 0 and 1"),
        ({"method": "x"}, "method is 'x'; expected"),
    ],
)
def test_wrong_arguments_are_told_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        Revive((X, Y), **options)


def test_a_deep_copy_shares_the_data_and_forgets_the_revivals():
    revive = Revive((X, Y))
    fit(net(), Kill(), revive)
    copied = deepcopy(revive)
    assert copied.data is revive.data
    assert (copied.revivals, len(revive.revivals)) == ({}, 4)
    assert fit(net(), Kill(), copied)["revived"] == [1.0] * 4


MIRRORED = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from relu_probe import Revive, measure
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.random.default_rng(0).standard_normal((200, 3)).astype("f")
y = x.sum(1, keepdims=True)
with strategy.scope():
    layers = [tf.keras.Input((3,)), tf.keras.layers.Dense(4, "relu", name="hidden"), tf.keras.layers.Dense(1)]
    model = tf.keras.Sequential(layers)
    model.compile(tf.keras.optimizers.Adam(0.01), "mse")
kernel, bias = model.get_layer("hidden").get_weights()
bias[1] = -1000
model.get_layer("hidden").set_weights([kernel, bias])
history = model.fit(x, y, batch_size=50, epochs=2, verbose=0, callbacks=[Revive((x, y))]).history
print(history["revived"], int(measure(model, x)["hidden"].dead.sum()))
"""


def test_under_a_mirrored_strategy():
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[1.0, 0.0] 0"], done.stderr[-2000:]
