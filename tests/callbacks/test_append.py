"""`ReluProbe(append=True)`: one probe over many fits, as an agent trains that learns a little again and again."""

import numpy as np
import pytest
import tensorflow as tf
from event_files import points
from models import sequential

from relu_probe import ReluProbe
from relu_probe.callbacks.log_writer import LogWriter

K, L = tf.keras, tf.keras.layers
X, Y = np.ones((8, 2), "f"), np.ones((8, 1), "f")


def net():
    return sequential(2, L.Dense(4, "relu", name="hidden"), L.Dense(1), optimizer=K.optimizers.SGD(0.0))


def set_dead(model, dead):
    """Sets the number of dead neurons."""
    bias = np.where(np.arange(4) < dead, -100.0, 1.0)
    model.get_layer("hidden").set_weights([np.ones((2, 4)), bias])


def fits(probe, number, model=None, **options):
    """Fits of 2 steps each; from the third on a neuron is dead."""
    model = model or net()
    for i in range(number):
        set_dead(model, int(i >= 2))
        model.fit(X, Y, batch_size=4, **{"verbose": 0, **options}, callbacks=[probe])
    return model


def test_epochs_steps_and_deaths_go_on(tmp_path):
    probe = ReluProbe(tmp_path, append=True)
    fits(probe, 4)
    assert [report.epoch for report in probe.reports] == [0, 1, 2, 3]
    assert [report.last_step for report in probe.reports] == [1, 3, 5, 7]
    assert [report.samples for report in probe.reports] == [8] * 4
    assert probe.report["hidden"].last_active.tolist() == [3, 7, 7, 7]
    assert probe.history["hidden"].dead_since.tolist() == [2, -1, -1, -1]
    assert len(probe.loss_jumps) == 4
    assert [step for step, _ in points(tmp_path / "relu_probe")["dead_fraction"]] == [0, 1, 2, 3]

    apart = ReluProbe()
    fits(apart, 4)
    assert [report.epoch for report in apart.reports] == [0]  # without `append` each fit is forgotten


def test_a_fit_that_numbers_its_epochs_itself_keeps_its_numbers():
    probe, model = ReluProbe(append=True), net()
    for first in (0, 5, 0):
        model.fit(X, Y, initial_epoch=first, epochs=first + 2, verbose=0, callbacks=[probe])
    assert [report.epoch for report in probe.reports] == [0, 1, 5, 6, 7, 8]


@pytest.mark.once
def test_two_hundred_fits_make_one_event_file_with_few_pictures(tmp_path):
    probe = ReluProbe(tmp_path, append=True, keep=4)
    fits(probe, 200)
    assert len(list((tmp_path / "relu_probe").iterdir())) == 1
    found = points(tmp_path / "relu_probe")
    assert [step for step, _ in found["dead_fraction/hidden"]] == list(range(200))
    drawn = [step + 1 for step, _ in found["a_overview/dead"]]
    assert len(drawn) < 60
    assert all(after <= before * 1.1 + 1 for before, after in zip(drawn, [*drawn[1:], 200]))  # never much older
    assert len(probe.reports) == 4


def test_limits_count_reports_of_several_fits():
    probe = ReluProbe(append=True, max_dead=0.1, patience=2, on_limit="raise")
    with pytest.raises(RuntimeError, match="hidden: 1 of 4 dead"):
        fits(probe, 10)
    assert len(probe.reports) == 2 + 3


def test_one_line_is_printed_in_all(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(LogWriter, "hinted", True)
    fits(ReluProbe(tmp_path, append=True), 3, verbose=2)
    assert capsys.readouterr().out.count("relu_probe: ") == 1
    fits(ReluProbe(tmp_path / "each"), 3, verbose=2)
    assert capsys.readouterr().out.count("relu_probe: ") == 3


def fit_without_a_relu(probe):
    model = sequential(2, L.Dense(1), optimizer="sgd")
    with pytest.raises(ValueError, match="ReLU"):
        model.fit(X, Y, verbose=0, callbacks=[probe])


def fit_beyond_the_limit(probe):
    model = net()
    set_dead(model, 3)
    with pytest.raises(RuntimeError, match="hidden: 3 of 4 dead"):
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=[probe])


def fit_with_an_error_of_ours(probe):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relu_probe.callbacks.relu_probe.call_last", None)
        with pytest.warns(match="ReluProbe stopped"):
            fits(probe, 1)


@pytest.mark.parametrize(
    ("fit_that_fails", "of_it"),
    [(fit_without_a_relu, []), (fit_beyond_the_limit, [6]), (fit_with_an_error_of_ours, [])],
)
def test_a_fit_that_fails_is_followed_by_the_next(fit_that_fails, of_it, tmp_path):
    probe = ReluProbe(tmp_path, append=True, max_dead=0.5, on_limit="raise")
    fits(probe, 3, epochs=2)
    fit_that_fails(probe)
    fits(probe, 1, epochs=2)
    before = 6 + len(of_it)
    epochs = [*range(6), *of_it, before, before + 1]
    assert [report.epoch for report in probe.reports] == epochs
    assert [report.last_step for report in probe.reports] == [2 * epoch + 1 for epoch in epochs]
    assert [step for step, _ in points(tmp_path / "relu_probe")["dead_fraction"]] == epochs
    assert len(list((tmp_path / "relu_probe").iterdir())) == 1


def test_the_steps_of_an_interrupted_epoch_count():
    probe, model = ReluProbe(append=True), net()

    class Interrupt(K.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=1, verbose=0, callbacks=[probe, Interrupt()])
    fits(probe, 1, model, epochs=2)  # of fewer steps than the interrupted epoch had
    assert [(report.epoch, report.last_step) for report in probe.reports] == [(1, 6), (2, 8)]
    assert [report.samples for report in probe.reports] == [8, 8]


def test_a_model_with_other_widths_leaves_the_earlier_reports_as_they_are():
    probe = ReluProbe(append=True)
    model = fits(probe, 1)
    wider = sequential(2, L.Dense(9, "relu", name="hidden"), L.Dense(1), optimizer="sgd")
    advice = r"layer 'hidden' has 9 neurons, and had 4 in an earlier fit.*Give each model a probe of its own, with another name="
    with pytest.warns(match=advice):
        logs = wider.fit(X, Y, epochs=2, verbose=0, callbacks=[probe]).history
    assert np.isnan(logs["dead_fraction"]).all()  # and not those of the other model
    fits(probe, 1, model)
    first, none, last = probe.reports
    assert (first.incomplete, none.epoch, list(none), last.incomplete) == ("", 1, [], "")
    assert "Give each model a probe of its own" in none.incomplete
    assert probe.history["hidden"].measured.tolist() == [True, False, True]


def test_an_interrupted_fit_is_followed_by_the_next(tmp_path):
    probe, model = ReluProbe(tmp_path, append=True), net()

    class Interrupt(K.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    fits(probe, 1, model)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, verbose=0, callbacks=[probe, Interrupt()])
    fits(probe, 2, model)
    assert [report.epoch for report in probe.reports] == [0, 2, 3]
    assert [step for step, _ in points(tmp_path / "relu_probe")["dead_fraction"]] == [0, 2, 3]
    assert len(list((tmp_path / "relu_probe").iterdir())) == 1
