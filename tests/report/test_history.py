"""The history of neurons: of hand-written reports, and of fits."""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from keras_version import LEGACY
from models import sequential
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from relu_probe import LayerReport, ReluProbe, Report, history
from relu_probe.report.history_table import sparkline

K, L = tf.keras, tf.keras.layers
N = 4


def report(active, epoch, **more):
    return Report({"hidden": LayerReport(samples=N, positions=N, active=active, **more)}, epoch=epoch)


# Neurons: always active; never active; dies in 1; revives in 1; dies in 1 and revives in 2.
REPORTS = [report(a, e) for e, a in enumerate([[4, 0, 1, 0, 2], [4, 0, 0, 1, 0], [4, 0, 0, 1, 1]])]


def test_deaths_and_revivals_follow_from_the_reports():
    found = history(REPORTS)["hidden"]
    assert found.born_dead.tolist() == [False] * 5  # no report is from before the first step
    assert found.never_active.tolist() == [False, True, False, False, False]
    assert found.dead_neurons.tolist() == [2, 3, 2]
    assert found.dead_fraction.tolist() == [0.4, 0.6, 0.4]
    assert found.died.tolist() == [[False] * 5, [False, False, True, False, True], [False] * 5]
    assert found.revived.tolist() == [[False] * 5, [False, False, False, True, False], [False] * 4 + [True]]
    assert found.dead_since.tolist() == [-1, 0, 1, -1, -1]


def brute_force(reports):
    """Neuron by neuron, from the definition: the previous state is that of the last report in which it was known."""
    died, revived = [], []
    for i, r in enumerate(reports):
        rows = ([], [])
        for n in range(r["hidden"].neurons):
            states = [
                (q["hidden"].active[n] > 0) for q in reports[:i] if q["hidden"].positions and not q["hidden"].nan[n]
            ]
            layer = r["hidden"]
            known = layer.positions > 0 and not layer.nan[n] and states
            rows[0].append(bool(known and states[-1] and layer.active[n] == 0))
            rows[1].append(bool(known and not states[-1] and layer.active[n] > 0))
        died.append(rows[0])
        revived.append(rows[1])
    return died, revived


@pytest.mark.parametrize("seed", range(5))
def test_the_history_equals_brute_force_with_gaps_and_nans(seed):
    rng = np.random.default_rng(seed)
    reports = []
    for epoch in range(12):
        seen = rng.random() < 0.8
        active = rng.integers(0, 2, 30) * seen
        nan = (rng.random(30) < 0.1) & (active == 0) & seen
        layer = LayerReport(samples=N * seen, positions=N * seen, active=active, nan=nan)
        reports.append(Report({"hidden": layer}, epoch=epoch))
    found, (died, revived) = history(reports)["hidden"], brute_force(reports)
    assert found.died.tolist() == died
    assert found.revived.tolist() == revived
    assert found.died.any()
    # The planted mistake ignores gaps and NaN.
    naive = np.diff([r["hidden"].dead for r in reports], axis=0, prepend=False).astype(int)
    assert not np.array_equal(naive, found.died)


def test_a_report_without_the_layer_changes_nothing():
    gap = Report({"hidden": LayerReport(samples=0, positions=0, active=[0, 0])}, epoch=1)
    found = history([report([0, 1], 0), gap, report([0, 1], 2)])["hidden"]
    assert not found.died.any()
    assert found.dead_since.tolist() == [0, -1]


def test_neurons_dead_before_the_first_step_are_dead_since_epoch_0():
    found = history([report([0, 1], -1), report([0, 0], 0)])["hidden"]
    assert found.epochs.tolist() == [-1, 0]
    assert found.dead_since.tolist() == [0, 0]
    assert found.born_dead.tolist() == [True, False]


def test_a_nan_is_neither_dead_nor_active():
    found = history([report([0], 0), report([0], 1, nan=[True])])["hidden"]
    assert found.dead_since.tolist() == [-1]
    assert not found.revived.any()


def test_reports_of_different_models_are_refused():
    with pytest.raises(ValueError, match="reports") as error:
        history([report([0, 1], 0), report([0], 1)])
    assert str(error.value) == (
        "one report has 2 neurons in a layer and another 1; expected reports of one model, oldest first. Pass the "
        "reports of one fit: probe.reports."
    )


def test_no_reports_give_an_empty_history():
    assert history([]) == {}


def test_the_history_prints_a_row_for_each_layer():
    assert str(history(REPORTS)).splitlines() == [
        "When ReLU neurons died and revived, epochs 0 to 2",
        "                   born   never                                  dead",
        "layer        dead  dead  active  died  revived  first death  fraction",
        "----------------------------------------------------------------------",
        "hidden    2 40.0%     0       1     2        2      epoch 1       ▄▆▄",
    ]


def test_the_full_table_of_the_history():
    assert history(REPORTS).table().splitlines()[1:] == [
        "layer     epoch     dead  died  revived",
        "----------------------------------------",
        "hidden        0  2 40.0%     0        0",
        "hidden        1  3 60.0%     2        1",
        "hidden        2  2 40.0%     0        1",
    ]


def test_a_history_is_one_line_in_a_debugger_and_a_table_in_a_notebook():
    found = history(REPORTS)
    assert repr(found) == "<History of 1 layer: 2 died, 2 revived>"
    assert repr(found["hidden"]) == "<LayerHistory of 3 reports: 2 died, 2 revived>"
    assert "array" not in found._repr_html_()
    assert all(f">{number}</td>" in found._repr_html_() for number in ("2", "40.0%", "epoch 1"))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_sparkline_tells_nothing_few_and_gaps_apart(encoding, monkeypatch):
    with open(os.devnull, "w", encoding=encoding) as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        sparks = sparkline([0, 1e-9, np.nan, 1])
        sparks.encode(encoding)
        assert len(set(sparks)) == 4
        assert sparks[2] == " "
        assert len(sparkline(np.linspace(0, 1, 1000))) == 24
        assert sparkline([0] * 999 + [1])[-1] == sparks[-1]


# --- dates of reports that count training steps -------------------------------------------------------------------------


def dated_reports(active, lengths, counted):
    """Reports of epochs with these numbers of steps; `active` is `(steps, neurons)` bool."""
    ends, reports = np.cumsum(lengths), []
    for epoch in counted:
        steps = np.arange(ends[epoch] - lengths[epoch], ends[epoch])
        seen = [
            step
            for end, length, e in zip(ends, lengths, range(epoch + 1))
            if e in counted
            for step in range(end - length, end)
        ]
        last = [max((step for step in seen if active[step, n]), default=-1) for n in range(active.shape[1])]
        layer = LayerReport(len(steps), len(steps), active[steps].sum(axis=0), last_active=last)
        reports.append(Report({"hidden": layer}, epoch=epoch, last_step=int(steps[-1])))
    return reports


def expected_dates(active, lengths, counted):
    """Neuron by neuron, from the definition."""
    ends = np.cumsum(lengths)
    epoch_of = np.repeat(np.arange(len(lengths)), lengths)
    dates = []
    for n in range(active.shape[1]):
        last = max((step for step in range(ends[-1]) if active[step, n] and epoch_of[step] in counted), default=-1)
        following = [step for step in range(last + 1, ends[-1]) if epoch_of[step] in counted]
        dead = epoch_of[last] != counted[-1] or last < 0
        dates.append(epoch_of[following[0]] if dead else -1)
    return dates


@pytest.mark.parametrize("freq", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_a_neuron_is_dead_since_the_epoch_of_the_step_after_its_last_activity(seed, freq):
    rng = np.random.default_rng(seed)
    lengths, counted = rng.integers(1, 5, 9), range(0, 9, freq)
    deaths = rng.integers(0, lengths.sum() + 1, 40)
    active = (np.arange(lengths.sum())[:, None] < deaths) & (rng.random((lengths.sum(), 40)) < 0.8)
    reports = dated_reports(active, lengths, counted)
    found = history(reports)["hidden"]
    assert found.dead_since.tolist() == expected_dates(active, lengths, counted)
    # The planted mistake takes the first report without activity.
    undated = [replace(report, last_step=None) for report in reports]
    assert history(undated)["hidden"].dead_since.tolist() != found.dead_since.tolist()
    assert history(undated)["hidden"].dead_since.tolist() == found.found_dead.tolist()


def test_a_neuron_killed_in_the_first_step_is_dead_since_that_epoch():
    model, probe = model_of(2, 1), ReluProbe()
    x, y = np.full((12, 1), 0.5, "f"), np.ones((12, 1))

    class KillAfter(K.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.get_layer("hidden").set_weights([np.ones((1, 2), "f"), np.array([0, -1], "f")])

    model.get_layer("hidden").set_weights([np.ones((1, 2), "f"), np.zeros(2, "f")])
    model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[probe, KillAfter()])
    assert [report.last_step for report in probe.reports] == [2, 5, 8]
    found = probe.history["hidden"]
    assert (found.last_active[1], found.dead_since[1], found.found_dead[1]) == (0, 0, 1)
    assert probe.reports[0].dead_fraction == 0  # it was active once in epoch 0
    assert "epoch 0, step 0" in str(probe.history)


def test_reports_on_given_data_have_no_last_step():
    model, probe = model_of(2, 1), ReluProbe(data=np.ones((4, 1)))
    model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0, callbacks=[probe])
    assert probe.report.last_step is None


# --- in a fit ---------------------------------------------------------------------------------------------------------


class Kill(tf.keras.callbacks.Callback):
    """Sets the biases of the hidden layer at the beginning of each epoch: neurons with -1 are dead in it."""

    def __init__(self, biases):
        super().__init__()
        self.biases = biases

    def on_epoch_begin(self, epoch, logs=None):
        self.model.get_layer("hidden").set_weights([np.ones((1, 2), "f"), np.array(self.biases[epoch], "f")])


def model_of(neurons, inputs, **options):
    """A model whose weights do not change: the learning rate is zero."""
    return sequential(inputs, L.Dense(neurons, "relu", name="hidden"), L.Dense(1), **options)


def test_died_and_revived_reach_the_scalars_and_the_table(tmp_path):
    model, x, y = model_of(2, 1), np.full((8, 1), 0.5, "f"), np.ones((8, 1))
    probe = ReluProbe(tmp_path)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[probe, Kill([[-1, 0], [0, -1], [0, -1]])])
    events = EventAccumulator(str(tmp_path / "relu_probe"), size_guidance={"tensors": 0}).Reload()
    values = {
        tag: [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]
        for tag in ("died/hidden", "revived/hidden")
    }
    assert values == {tag: [(0, 0.0), (1, 1.0), (2, 0.0)] for tag in values}
    assert "hidden: 1 died and 1 revived since the previous report." in str(probe.reports[1])
    assert "died" not in str(probe.reports[2])
    assert history(probe.reports)["hidden"].dead_since.tolist() == [-1, 1]


def test_died_and_revived_are_neither_added_nor_compared():
    first = LayerReport(samples=4, positions=4, active=[1], died=1, revived=0)
    assert (first + first).died is None
    assert first == LayerReport(samples=4, positions=4, active=[1])
    assert LayerReport.from_dict(first.to_dict()).died == 1


# Of the 10 steps of 4 samples, step 2 activates neuron 0 and step 8 neuron 1; neuron 2 is never active.
def active_at_2_and_8():
    x = np.zeros((40, 3), "f")
    x[9, 0] = x[33, 1] = 1
    return x, np.ones((40, 1))


def last_active(probe, model, **fit):
    x, y = active_at_2_and_8()
    model.get_layer("hidden").set_weights([np.eye(3, dtype="f"), np.zeros(3, "f")])
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[probe], **fit)
    return [r["hidden"].last_active.tolist() for r in probe.reports]


@pytest.mark.parametrize(
    "options", [{}, {"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 5}], ids=str
)
def test_last_active_is_the_training_step_of_this_fit(options):
    probe, model = ReluProbe(), model_of(3, 3, **options)
    first = last_active(probe, model, epochs=2)
    assert first == [[2, 8, -1], [12, 18, -1]]
    assert last_active(probe, model, epochs=2) == first  # a second fit counts from 0


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 5}], ids=str)
def test_steps_of_unmeasured_epochs_count_too(options):
    assert last_active(ReluProbe(freq=2), model_of(3, 3, **options), epochs=4) == [[2, 8, -1], [22, 28, -1]]
    assert last_active(ReluProbe(freq=2), model_of(3, 3, **options), epochs=3, initial_epoch=1) == [[12, 18, -1]]


@pytest.mark.skipif(LEGACY, reason="tf_keras wants steps_per_epoch with several steps in an execution")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # so says Keras of any data of unknown size
def test_steps_count_if_the_data_ends_within_an_execution_of_several_steps():
    """10 steps an epoch in executions of 4, and a number of steps that Keras does not know; loss jumps have the same dates."""
    x, y = active_at_2_and_8()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4).filter(lambda *_: True)
    model, probe, every = model_of(3, 3, steps_per_execution=4), ReluProbe(freq=2), ReluProbe(name="every")
    model.get_layer("hidden").set_weights([np.eye(3, dtype="f"), np.zeros(3, "f")])
    model.fit(data, epochs=5, shuffle=False, verbose=0, callbacks=[probe, every])
    assert [r["hidden"].last_active.tolist() for r in probe.reports] == [[s + 2, s + 8, -1] for s in (0, 20, 40)]
    assert [r["hidden"].last_active.tolist() for r in every.reports] == [[s + 2, s + 8, -1] for s in range(0, 50, 10)]
    assert [jump.step // 10 for jump in every.loss_jumps] == list(range(5))


def test_a_death_is_dated_to_the_batch():
    """A neuron that dies at the beginning of epoch 1 was last active in the last step of epoch 0."""
    model, probe = model_of(2, 1), ReluProbe()
    x, y = np.full((12, 1), 0.5, "f"), np.ones((12, 1))
    model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[probe, Kill([[0, 0], [0, -1], [0, -1]])])
    assert probe.report["hidden"].last_active.tolist() == [8, 2]
    assert (probe.reports[0]["hidden"] + probe.report["hidden"]).last_active.tolist() == [8, 2]


# --- before the first step --------------------------------------------------------------------------------------------


def test_at_start_distinguishes_born_dead_from_killed(tmp_path):
    model = model_of(2, 1)
    model.get_layer("hidden").set_weights([np.ones((1, 2), "f"), np.array([0, -1], "f")])
    data = np.full((8, 1), 0.5, "f"), np.ones((8, 1))
    probe = ReluProbe(tmp_path, data, at_start=True)
    model.fit(*data, epochs=2, verbose=0, callbacks=[probe, Kill([[-1, -1], [-1, -1]])])
    assert [r.epoch for r in probe.reports] == [-1, 0, 1]
    found = history(probe.reports)["hidden"]
    assert (found.born_dead.tolist(), found.died[1].tolist()) == ([False, True], [True, False])
    assert not found.never_active.any()
    events = EventAccumulator(str(tmp_path / "relu_probe"), size_guidance={"tensors": 0}).Reload()
    assert [e.step for e in events.Tensors("dead_fraction/hidden")] == [-1, 0, 1]


def test_a_resumed_fit_has_no_report_from_before_its_first_step():
    data = np.full((8, 1), 0.5, "f"), np.ones((8, 1))
    probe = ReluProbe(data=data, at_start=True)
    model_of(2, 1).fit(*data, epochs=4, initial_epoch=3, verbose=0, callbacks=[probe])
    assert [r.epoch for r in probe.reports] == [3]


def test_at_start_needs_data():
    with pytest.raises(ValueError, match="at_start") as error:
        ReluProbe(at_start=True)
    assert str(error.value) == (
        "at_start=True and data=None: before the first step there is no training batch to count; expected data to "
        "measure on. Pass data=(x, y)."
    )


def test_jumps_of_the_loss_are_found():
    """In step 7 of 10 the targets are 10, so its loss is 100; the loss of the steps before is 1."""
    model, probe = model_of(1, 1), ReluProbe()
    model.get_layer("hidden").set_weights([np.zeros((1, 1), "f"), np.zeros(1, "f")])
    y = np.ones((40, 1))
    y[28:32] = 10
    model.fit(np.ones((40, 1)), y, batch_size=4, shuffle=False, epochs=2, verbose=0, callbacks=[probe])
    assert [jump.step for jump in probe.loss_jumps] == [7, 17]
    assert probe.loss_jumps[0].before == pytest.approx(1, rel=1e-4)
    assert probe.loss_jumps[0].after == pytest.approx(100, rel=1e-3)
    assert probe.loss_jumps[0].ratio == pytest.approx(100, rel=1e-3)


# --- dormant ----------------------------------------------------------------------------------------------------------


def test_the_table_shows_dormant_neurons_on_request():
    layer = LayerReport(samples=4, positions=4, active=[4, 4, 0], activation_sum=[10.0, 0.1, 0.0])
    found = Report({"hidden": layer}, source="measure")
    assert "dormant" not in str(found)
    header, row = (found.table(tau=0.05).splitlines()[i].split() for i in (2, 4))
    assert header == ["layer", "neurons", "dead", "gradient", "tau", "=", "0.05", "samples", "positions"]
    assert row == ["hidden", "3", "1", "33.3%", "-", "2", "66.7%", "4", "4"]
    with pytest.raises(ValueError, match="activation_sum"):
        report([1], 0).table(tau=0.1)


def test_two_probes_that_skip_epochs_count_each_step_once():
    model = sequential(2, L.Dense(3, "relu", kernel_initializer="ones", name="hidden"), L.Dense(1))
    probes = [ReluProbe(strict=True, freq=2, name="a"), ReluProbe(strict=True, freq=3, name="b")]
    model.fit(np.ones((6, 2)), np.ones((6, 1)), batch_size=2, epochs=7, verbose=0, callbacks=probes)
    for probe in probes:  # both measured the last of 7 epochs with 3 steps each
        assert [report.epoch for report in probe.reports][-1] == 6
        assert probe.report["hidden"].last_active.tolist() == [20, 20, 20]


class Sometimes(K.Model):
    """Calls `b` in steps 1 and 3 only, and `c` in steps 0 and 2 only."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (L.Dense(3, "relu", kernel_initializer="ones", name=name) for name in "abc")
        self.head, self.step = L.Dense(1), 0

    def call(self, x):
        x = self.a(x)
        x = self.b(x) if self.step in (1, 3) else x
        x = self.c(x) if self.step in (0, 2) else x
        return self.head(x)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_layers_called_in_some_steps_share_one_step_counter():
    model, probe = Sometimes(), ReluProbe(strict=True)
    model.compile(K.optimizers.SGD(0.0), "mse", run_eagerly=True)
    for layer in (model.a, model.b, model.c, model.head):
        layer.build((None, 2 if layer is model.a else 3))
    model.built = True
    count = K.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: setattr(model, "step", int(batch)))
    model.fit(np.ones((10, 2)), np.ones((10, 1)), batch_size=2, verbose=0, callbacks=[count, probe])
    steps = {key: layer.last_active.tolist() for key, layer in probe.report.layers.items()}
    assert steps == {"a": [4] * 3, "b": [3] * 3, "c": [2] * 3}
