"""History of neurons: on planted lives, and in real fits."""

import numpy as np
import pytest
import tensorflow as tf
from models import sequential
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from relu_probe import LayerReport, ReluProbe, Report, history

K, L = tf.keras, tf.keras.layers
N = 4


def report(active, epoch, **more):
    return Report({"hidden": LayerReport(samples=N, positions=N, active=active, **more)}, epoch=epoch)


# Neurons: always active, born dead, dies in 1, born dead and revived in 1, dies in 1 and is back in 2.
LIVES = [report(a, e) for e, a in enumerate([[4, 0, 1, 0, 2], [4, 0, 0, 1, 0], [4, 0, 0, 1, 1]])]


def test_a_life_is_told_from_the_reports():
    found = history(LIVES)["hidden"]
    assert found.born_dead.tolist() == [False, True, False, True, False]
    assert found.died.tolist() == [[False] * 5, [False, False, True, False, True], [False] * 5]
    assert found.revived.tolist() == [[False] * 5, [False, False, False, True, False], [False] * 4 + [True]]
    assert found.dead_since.tolist() == [-1, 0, 1, -1, -1]


def brute_force(reports):
    """Neuron by neuron, from the definition: the state before is that of the last report that knew it."""
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
def test_lives_equal_brute_force_with_gaps_and_nans(seed):
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
    naive = np.diff([r["hidden"].dead for r in reports], axis=0, prepend=False).astype(int)  # blind to gaps and NaN
    assert not np.array_equal(naive, found.died)


def test_a_layer_that_a_report_did_not_measure_is_as_it_was():
    gap = Report({"hidden": LayerReport(samples=0, positions=0, active=[0, 0])}, epoch=1)
    found = history([report([0, 1], 0), gap, report([0, 1], 2)])["hidden"]
    assert not found.died.any()
    assert found.dead_since.tolist() == [0, -1]


def test_dead_before_the_first_step_is_since_epoch_0():
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
        "one report has 2 neurons in a layer and a later one 1; expected reports of one model, oldest first. Pass the "
        "reports of one fit: probe.reports."
    )


def test_no_reports_no_lives():
    assert history([]) == {}


def test_the_table_of_lives():
    assert str(history(LIVES)).splitlines()[1:] == [
        "layer     epoch  born dead  died  revived",
        "------------------------------------------",
        "hidden        0          2     0        0",
        "hidden        1                2        1",
        "hidden        2                0        1",
    ]


# --- in a fit ---------------------------------------------------------------------------------------------------------


class Kill(tf.keras.callbacks.Callback):
    """Sets the biases of the hidden layer when an epoch begins: the neurons with -1 are dead in it."""

    def __init__(self, biases):
        super().__init__()
        self.biases = biases

    def on_epoch_begin(self, epoch, logs=None):
        self.model.get_layer("hidden").set_weights([np.ones((1, 2), "f"), np.array(self.biases[epoch], "f")])


def model_of(neurons, inputs, **options):
    """Weights stand still: a rate of zero."""
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
    assert "hidden: 1 died and 1 revived since the report before." in str(probe.reports[1])
    assert "died" not in str(probe.reports[2])
    assert history(probe.reports)["hidden"].dead_since.tolist() == [-1, 1]


def test_changes_are_no_counts_of_their_own():
    first = LayerReport(samples=4, positions=4, active=[1], died=1, revived=0)
    assert (first + first).died is None
    assert first == LayerReport(samples=4, positions=4, active=[1])
    assert LayerReport.from_dict(first.to_dict()).died == 1


# Neuron i sees sample i only: of the 10 steps of 4 samples, 2 and 8 wake neurons 0 and 1; neuron 2 never wakes.
def awake_at_2_and_8():
    x = np.zeros((40, 3), "f")
    x[9, 0] = x[33, 1] = 1
    return x, np.ones((40, 1))


def dated(probe, model, **fit):
    x, y = awake_at_2_and_8()
    model.get_layer("hidden").set_weights([np.eye(3, dtype="f"), np.zeros(3, "f")])
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[probe], **fit)
    return [r["hidden"].last_active.tolist() for r in probe.reports]


@pytest.mark.parametrize(
    "options", [{}, {"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 5}], ids=str
)
def test_last_active_is_the_training_step_of_this_fit(options):
    probe, model = ReluProbe(), model_of(3, 3, **options)
    first = dated(probe, model, epochs=2)
    assert first == [[2, 8, -1], [12, 18, -1]]
    assert dated(probe, model, epochs=2) == first  # a second fit counts from 0


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 5}], ids=str)
def test_steps_of_epochs_that_are_not_measured_count_too(options):
    assert dated(ReluProbe(freq=2), model_of(3, 3, **options), epochs=4) == [[2, 8, -1], [22, 28, -1]]
    assert dated(ReluProbe(freq=2), model_of(3, 3, **options), epochs=3, initial_epoch=1) == [[12, 18, -1]]


def test_a_death_is_dated_to_the_batch():
    """A neuron that is killed for good at the beginning of epoch 1 was last active in the last step of epoch 0."""
    model, probe = model_of(2, 1), ReluProbe()
    x, y = np.full((12, 1), 0.5, "f"), np.ones((12, 1))
    model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[probe, Kill([[0, 0], [0, -1], [0, -1]])])
    assert probe.report["hidden"].last_active.tolist() == [8, 2]
    assert (probe.reports[0]["hidden"] + probe.report["hidden"]).last_active.tolist() == [8, 2]


# --- before the first step --------------------------------------------------------------------------------------------


def test_at_start_tells_born_dead_from_killed(tmp_path):
    model = model_of(2, 1)
    model.get_layer("hidden").set_weights([np.ones((1, 2), "f"), np.array([0, -1], "f")])
    data = np.full((8, 1), 0.5, "f"), np.ones((8, 1))
    probe = ReluProbe(tmp_path, data, at_start=True)
    model.fit(*data, epochs=2, verbose=0, callbacks=[probe, Kill([[-1, -1], [-1, -1]])])
    assert [r.epoch for r in probe.reports] == [-1, 0, 1]
    found = history(probe.reports)["hidden"]
    assert (found.born_dead.tolist(), found.died[1].tolist()) == ([False, True], [True, False])
    events = EventAccumulator(str(tmp_path / "relu_probe"), size_guidance={"tensors": 0}).Reload()
    assert [e.step for e in events.Tensors("dead_fraction/hidden")] == [-1, 0, 1]


def test_a_resumed_fit_does_not_report_its_start():
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
    """Targets of 10 in step 7 of the 10: its loss is 100, and that of the steps before is 1."""
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


def test_dormant_neurons_in_the_table_on_request():
    layer = LayerReport(samples=4, positions=4, active=[4, 4, 0], activation_sum=[10.0, 0.1, 0.0])
    found = Report({"hidden": layer}, source="measure")
    assert "dormant" not in str(found)
    header, row = (found.table(tau=0.05).splitlines()[i].split() for i in (2, 4))
    assert header == ["layer", "neurons", "dead", "gradient", "tau", "=", "0.05", "samples", "positions"]
    assert row == ["hidden", "3", "1", "33.3%", "-", "2", "66.7%", "4", "4"]
    with pytest.raises(ValueError, match="activation_sum"):
        report([1], 0).table(tau=0.1)


def test_tables_are_text_in_a_notebook_too(monkeypatch):
    """There `rich` would show the table itself, and hand back nothing."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert "hidden" in str(history(LIVES)).splitlines()[3]


def test_two_probes_that_skip_epochs_number_the_steps_once():
    model = sequential(2, L.Dense(3, "relu", kernel_initializer="ones", name="hidden"), L.Dense(1))
    probes = [ReluProbe(strict=True, freq=2, name="a"), ReluProbe(strict=True, freq=3, name="b")]
    model.fit(np.ones((6, 2)), np.ones((6, 1)), batch_size=2, epochs=7, verbose=0, callbacks=probes)
    for probe in probes:  # both measured the last of 7 epochs of 3 steps
        assert [report.epoch for report in probe.reports][-1] == 6
        assert probe.report["hidden"].last_active.tolist() == [20, 20, 20]


class Sometimes(K.Model):
    """`b` takes part in the steps 1 and 3 only, `c` in 0 and 2."""

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
def test_layers_that_take_part_in_some_steps_are_dated_by_one_clock():
    model, probe = Sometimes(), ReluProbe(strict=True)
    model.compile(K.optimizers.SGD(0.0), "mse", run_eagerly=True)
    for layer in (model.a, model.b, model.c, model.head):
        layer.build((None, 2 if layer is model.a else 3))
    model.built = True
    count = K.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: setattr(model, "step", int(batch)))
    model.fit(np.ones((10, 2)), np.ones((10, 1)), batch_size=2, verbose=0, callbacks=[count, probe])
    dates = {key: layer.last_active.tolist() for key, layer in probe.report.layers.items()}
    assert dates == {"a": [4] * 3, "b": [3] * 3, "c": [2] * 3}


class Nested(K.Model):
    """`hidden` is called in a graph of its own, where each call is counted at once, before the step ends."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = L.Dense(3, "relu", name="hidden"), L.Dense(1, name="head")
        self.inner = tf.function(self.hidden)

    def call(self, x):
        return self.head(self.inner(x))


def test_a_layer_in_a_function_of_its_own_is_dated_too():
    model = Nested()
    model(np.zeros((1, 3), "f"))
    model.compile(K.optimizers.SGD(0.0), "mse")
    assert dated(ReluProbe(strict=True), model, epochs=2) == [[2, 8, -1], [12, 18, -1]]
