"""Limits in training: a fit is stopped, or fails, if too many of a layer's neurons stay dead."""

import csv
import re

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import LayerReport, ReluProbe, Report
from relu_probe.report.limit_monitor import LimitMonitor
from relu_probe.report.limits import Limits

K = tf.keras
X, Y = np.ones((8, 3), "f"), np.zeros((8, 1), "f")


def model_with(bias, name="hidden"):
    """Returns a model whose four hidden neurons are alive on `X` with a bias of 0.1, and dead with one of -100."""
    bias = K.initializers.Constant(bias)
    hidden = K.layers.Dense(4, "relu", kernel_initializer="ones", bias_initializer=bias, name=name)
    out = K.layers.Dense(1, kernel_initializer=K.initializers.Constant(0.1))
    return sequential(3, hidden, out, optimizer=K.optimizers.SGD(1e-4))


def fit(model, *callbacks, epochs=6):
    return model.fit(X, Y, epochs=epochs, verbose=0, callbacks=list(callbacks)).history


@pytest.mark.parametrize(("patience", "epochs"), [(0, 1), (2, 3)])
def test_a_dead_fit_is_stopped_after_patience_reports_and_names_the_layer(patience, epochs, capsys):
    history = fit(model_with(-100.0), ReluProbe(max_dead=0.5, patience=patience))
    assert history["dead_fraction"] == [1.0] * epochs
    assert (
        f"relu_probe: training stopped after epoch {epochs - 1}: hidden: 4 of 4 dead (limit 50 %) "
        "on 8 samples; neurons 0, 1, 2, 3\n"
    ) in capsys.readouterr().out


def test_only_measured_epochs_count_for_patience():
    assert len(fit(model_with(-100.0), ReluProbe(max_dead=0.5, patience=1, freq=2))["loss"]) == 3  # epochs 0 and 2


def test_a_healthy_fit_goes_on(capsys):
    assert len(fit(model_with(0.1), ReluProbe(max_dead=0.0))["loss"]) == 6
    assert capsys.readouterr().out == ""


def test_early_stopping_is_the_wrong_tool():
    """The fraction of a healthy fit stays at 0 and never improves: `EarlyStopping` stops it like a dead one."""
    stopper = K.callbacks.EarlyStopping(monitor="dead_fraction", mode="min")
    history = fit(model_with(0.1), ReluProbe(), stopper)
    assert history["dead_fraction"] == [0.0, 0.0]  # 2 of 6 epochs


def test_raise_fails_the_fit_and_leaves_the_event_files_complete(tmp_path):
    probe = ReluProbe(tmp_path, max_dead=0.5, on_limit="raise")
    with pytest.raises(RuntimeError, match=r"relu_probe: training failed in epoch 0: hidden: 4 of 4 dead"):
        fit(model_with(-100.0), probe)
    assert probe._log_writer is None
    assert list(tmp_path.rglob("*.tfevents.*"))
    assert probe.report.dead_fraction == 1.0


def test_a_limit_on_the_zero_gradient_fraction():
    """Outgoing weights of zero block every neuron, though none is dead."""
    model = model_with(0.1)
    model.layers[-1].set_weights([np.zeros((4, 1)), np.ones(1)])
    model.layers[-1].trainable = False
    model.compile(K.optimizers.SGD(1e-4), "mse")
    assert len(fit(model, ReluProbe(max_dead=0.0))["loss"]) == 6
    with pytest.raises(RuntimeError, match=re.escape("hidden: 4 of 4 without gradient (limit 50 %)")):
        fit(model, ReluProbe(max_zero_gradient=0.5, on_limit="raise"))


def test_a_second_fit_starts_from_zero():
    probe, model = ReluProbe(max_dead=0.5, patience=1), model_with(-100.0)
    assert [len(fit(model, probe)["loss"]) for _ in range(2)] == [2, 2]


def test_limits_on_held_out_data():
    """The neurons are alive on the training data, and dead on the measured data."""
    history = fit(model_with(0.1), ReluProbe(data=(-X, Y), max_dead=0.5))
    assert history["dead_fraction"] == [1.0]


def test_missing_gradients_are_reported_before_the_first_step():
    text = (
        "max_zero_gradient=0.5 needs gradients, and data gives none; expected data=(x, y) and a model compiled with a "
        "loss. Pass labels, or leave max_zero_gradient out."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        fit(model_with(0.1), ReluProbe(data=X, max_zero_gradient=0.5))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_dead": 50}, "max_dead is 50; expected a fraction from 0 to 1, for example 0.05 for 5 %."),
        ({"max_zero_gradient": -0.1}, "max_zero_gradient is -0.1; expected a fraction from 0 to 1"),
        ({"max_dead": 0.5, "patience": -1}, "patience is -1; expected a whole number of reports >= 0."),
        ({"max_dead": 0.5, "patience": 1.5}, "patience is 1.5; expected a whole number of reports >= 0."),
        ({"max_dead": 0.5, "on_limit": "halt"}, "on_limit is 'halt'; expected 'stop' or 'raise'."),
        (
            {"patience": 3},
            "patience=3 and on_limit='stop' without a limit have no effect; expected a limit. Pass max_dead=0.5, for",
        ),
        ({"on_limit": "raise"}, "patience=0 and on_limit='raise' without a limit have no effect; expected a limit."),
    ],
)
def test_wrong_arguments_are_refused(arguments, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        ReluProbe(**arguments)


def report(**dead):
    return Report({name: LayerReport(2, 2, [0] * n + [1] * (2 - n)) for name, n in dead.items()})


def test_each_layer_has_its_own_patience():
    """Layers that exceed the limit in turn do not add up."""
    monitor = LimitMonitor(Limits(max_dead=0.5), patience=1)
    turns = [report(a=2, b=0), report(a=0, b=2), report(a=2, b=0)]
    assert [monitor.follow(turn) for turn in turns] == ["", "", ""]
    assert monitor.follow(report(a=2, b=2)).startswith("a: 2 of 2 dead (limit 50 %) on 2 samples")
    assert any(t["a"].dead_fraction > 0.5 or t["b"].dead_fraction > 0.5 for t in turns)


def test_an_unmeasured_layer_exceeds_no_limit():
    assert LimitMonitor(Limits(max_dead=0.0)).follow(Report({"a": LayerReport(0, 0, [0])})) == ""


def test_other_callbacks_see_the_fractions(tmp_path):
    log, best = tmp_path / "log.csv", tmp_path / "best.keras"
    checkpoint = K.callbacks.ModelCheckpoint(str(best), monitor="dead_fraction", mode="min", save_best_only=True)
    history = fit(model_with(-100.0), ReluProbe(max_dead=0.5, patience=2), checkpoint, K.callbacks.CSVLogger(log))
    rows = list(csv.DictReader(log.read_text().splitlines()))
    assert [float(row["dead_fraction"]) for row in rows] == history["dead_fraction"] == [1.0] * 3
    assert [float(row["zero_gradient_fraction"]) for row in rows] == [1.0] * 3
    assert best.exists()
