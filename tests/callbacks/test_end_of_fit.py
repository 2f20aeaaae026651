"""What a fit prints at its end, and the keys of single layers in `logs`."""

import csv

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe
from relu_probe.callbacks.log_writer import LogWriter

K, L = tf.keras, tf.keras.layers
X, Y = np.ones((8, 2), "f"), np.ones((8, 1), "f")


class KillFrom(K.callbacks.Callback):
    """Kills 2 of 4 neurons of `hidden` from the beginning of an epoch on, and 1 of 2 of `second`."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        dead = -100.0 if epoch >= self.epoch else 1.0
        self.model.get_layer("hidden").set_weights([np.ones((2, 4)), np.array([dead, dead, 1, 1])])
        self.model.get_layer("second").set_weights([np.ones((4, 2)), np.ones(2)])


def fit(probe, *others, epochs=3, verbose=2):
    hidden, second = L.Dense(4, "relu", name="hidden"), L.Dense(2, "relu", name="second")
    model = sequential(2, hidden, second, L.Dense(1), optimizer=K.optimizers.SGD(0.0))
    return model.fit(X, Y, epochs=epochs, verbose=verbose, callbacks=[KillFrom(1), probe, *others]).history


def lines_of_the_probe(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("relu_probe")]


@pytest.fixture(autouse=True)
def no_hint_yet(monkeypatch):
    monkeypatch.setattr(LogWriter, "hinted", False)


def test_a_fit_ends_with_one_line(capsys):
    fit(ReluProbe())
    expected = "relu_probe: 33.3 % of 6 ReLU neurons dead, worst hidden (50 %, since epoch 1)"
    assert lines_of_the_probe(capsys) == [expected]


def test_a_healthy_fit_says_so(capsys):
    fit(ReluProbe(), epochs=1)
    assert lines_of_the_probe(capsys) == ["relu_probe: none of 6 ReLU neurons dead"]


def test_a_probe_with_a_name_says_it(capsys):
    fit(ReluProbe(name="held_out", data=X), epochs=1)
    assert lines_of_the_probe(capsys) == ["relu_probe (held_out): none of 6 ReLU neurons dead"]


@pytest.mark.parametrize(("of_probe", "of_fit", "lines"), [(None, 0, 0), (0, 2, 0), (1, 0, 1), (None, 2, 1)])
def test_verbose(of_probe, of_fit, lines, capsys):
    fit(ReluProbe(verbose=of_probe), epochs=1, verbose=of_fit)
    assert len(lines_of_the_probe(capsys)) == lines


def test_the_hint_at_tensorboard_is_printed_once_a_process(tmp_path, capsys):
    for name in ("first", "second"):
        fit(ReluProbe(tmp_path / name), epochs=1)
    lines = lines_of_the_probe(capsys)
    assert lines == [lines[0], f"relu_probe: tensorboard --logdir {tmp_path / 'first'}", lines[0]]


@pytest.mark.parametrize("verbose", [2, "auto", -1, 0.5])
def test_wrong_values_of_verbose_are_refused(verbose):
    with pytest.raises(ValueError, match=r"verbose is .*; expected 0, 1, or None"):
        ReluProbe(verbose=verbose)


def test_logs_have_the_worst_layer_and_on_request_every_layer(tmp_path):
    log = tmp_path / "log.csv"
    history = fit(ReluProbe(layer_logs=True, freq=2), K.callbacks.CSVLogger(str(log)), epochs=4, verbose=0)
    assert history["max_dead_fraction"] == history["dead_fraction_hidden"] == [0, 0, 0.5, 0.5]
    assert history["dead_fraction_second"] == [0] * 4
    rows = list(csv.DictReader(log.read_text().splitlines()))
    assert [float(row["dead_fraction_hidden"]) for row in rows] == history["dead_fraction_hidden"]
    assert not [key for key in fit(ReluProbe(), verbose=0) if key.startswith("dead_fraction_")]


def test_keys_of_layers_in_nested_models_have_no_slash():
    inner = K.Sequential([K.Input((2,)), L.Dense(3, "relu", name="same")], name="inner")
    outer = K.Sequential([K.Input((2,)), L.Dense(2, "relu", name="same"), inner, L.Dense(1)])
    outer.compile("sgd", "mse")
    history = outer.fit(X, Y, verbose=0, callbacks=[ReluProbe(layer_logs=True, name="val", data=X)]).history
    assert {"val_dead_fraction_inner.same", "val_max_dead_fraction"} <= set(history)


def test_a_probe_is_one_line_in_a_debugger():
    probe = ReluProbe()
    assert repr(probe) == "<ReluProbe 'relu_probe': 0 reports>"
    fit(probe, verbose=0)
    assert repr(probe) == (
        "<ReluProbe 'relu_probe': 3 reports, newest <Report train epoch 2: 2 of 6 dead, worst hidden 50 %>>"
    )
