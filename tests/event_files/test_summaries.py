"""Scalars and histograms, read back from the event files."""

import glob

import numpy as np
import pytest
import tensorflow as tf
from event_files import events
from models import sequential

from relu_probe import LayerReport, ReluProbe, Report
from relu_probe.tensorboard.summaries import Summaries
from relu_probe.tensorboard.summary_values import EDGES, histogram

pytestmark = pytest.mark.any_keras

K, L = tf.keras, tf.keras.layers


def model():
    bias = K.initializers.Constant([-100.0, 0.5, 0.5, 0.5])
    hidden = L.Dense(4, "relu", bias_initializer=bias, name="hidden")
    return sequential(3, hidden, L.Dense(5, "relu", name="second"), L.Dense(1), optimizer="adam")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.random((20, 3), np.float32), rng.random((20, 1), np.float32)


def test_scalars_and_histograms_of_each_epoch(tmp_path, data):
    probe = ReluProbe(tmp_path)
    model().fit(*data, epochs=3, verbose=0, callbacks=[probe])
    found, accumulator = events(tmp_path / "relu_probe")
    for tag in ("dead_fraction", "blocked_fraction", "zero_gradient_fraction"):
        assert [(s, float(v)) for s, v in found[tag]] == [(r.epoch, np.float32(getattr(r, tag))) for r in probe.reports]
        for name in ("hidden", "second"):
            values = [np.float32(getattr(r[name], tag)) for r in probe.reports]
            assert [float(v) for _, v in found[f"{tag}/{name}"]] == values
    for tag in ("activation_rate", "gradient_rate"):
        for name in ("hidden", "second"):
            steps = found[f"{tag}/{name}"]
            assert [s for s, _ in steps] == [0, 1, 2]
            for (_, buckets), report in zip(steps, probe.reports):
                np.testing.assert_allclose(buckets, histogram(getattr(report[name], tag)))
                assert buckets[0, 2] == np.count_nonzero(getattr(report[name], tag) == 0)
    assert found["dead_fraction/hidden"][0][1] == 0.25
    assert "never active" in accumulator.SummaryMetadata("dead_fraction").summary_description
    assert "4 neurons" in accumulator.SummaryMetadata("dead_fraction/hidden").summary_description


def test_the_first_bucket_holds_exactly_the_zeros():
    rates = np.array([0.0, 0.0, 1e-12, 1 / 29, 1.0])
    buckets = histogram(rates)
    assert buckets.shape == (30, 3)
    np.testing.assert_allclose(EDGES[[0, 1, -1]], [-1 / 29, 0, 1], atol=1e-15)
    assert buckets[0, 2] == 2
    assert buckets[1, 2] == 2  # (0, 1/29]
    assert buckets[-1, 2] == 1
    assert buckets[:, 2].sum() == len(rates)
    adaptive, _ = np.histogram(rates, bins=30)  # the planted mistake: TensorFlow's own edges
    assert adaptive[0] != 2


def test_keras_tensorboard_callback_suppresses_nothing(tmp_path, data):
    """Its `record_if` would suppress the summaries of other callbacks."""
    theirs = K.callbacks.TensorBoard(tmp_path, update_freq=7, histogram_freq=1)
    model().fit(*data, epochs=4, batch_size=3, verbose=0, callbacks=[theirs, ReluProbe(tmp_path)])
    found, _ = events(tmp_path / "relu_probe")
    assert [step for step, _ in found["dead_fraction"]] == [0, 1, 2, 3]
    assert events(tmp_path / "train")[0]["epoch_loss"]
    assert not [tag for tag in events(tmp_path / "train")[0] if "dead" in tag]


def test_each_epoch_is_flushed_when_it_ends(tmp_path, data):
    read_back = []
    read = K.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: read_back.append(len(events(tmp_path / "relu_probe")[0]["dead_fraction"]))
    )
    model().fit(*data, epochs=3, verbose=0, callbacks=[ReluProbe(tmp_path), read])
    assert read_back == [1, 2, 3]


def test_freq_and_logs(tmp_path, data):
    probe = ReluProbe(tmp_path, freq=2)
    csv = K.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    history = model().fit(*data, epochs=4, verbose=0, callbacks=[probe, csv]).history
    assert [step for step, _ in events(tmp_path / "relu_probe")[0]["dead_fraction"]] == [0, 2]
    assert [report.epoch for report in probe.reports] == [0, 2]
    assert history["dead_fraction"] == [probe.reports[i // 2].dead_fraction for i in range(4)]
    assert all(type(value) is float for value in history["zero_gradient_fraction"])
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert "dead_fraction" in rows[0]
    assert len(rows) == 5


def test_probes_of_two_names_write_two_runs(tmp_path, data):
    probes = [ReluProbe(tmp_path), ReluProbe(tmp_path, data[0], name="val")]
    history = model().fit(*data, epochs=1, verbose=0, callbacks=probes).history
    assert {"dead_fraction", "zero_gradient_fraction", "val_dead_fraction"} <= set(history)
    assert "val_zero_gradient_fraction" not in history  # x alone: activations only
    assert set(events(tmp_path / "val")[0]) >= {"dead_fraction", "dead_fraction/hidden", "activation_rate/hidden"}
    assert not [tag for tag in events(tmp_path / "val")[0] if tag.startswith(("zero_gradient", "gradient_rate"))]


def test_the_chart_has_a_gap_where_no_neuron_can_be_judged(tmp_path):
    """Without a point of its own, the line would go on as if nothing had happened."""
    dead, lost = LayerReport(2, 2, [0, 0], [0, 0]), LayerReport(2, 2, [0, 0], [0, 0], nan=[True, True])
    writer = Summaries(str(tmp_path), "run")
    for epoch, layer in enumerate([dead, lost, dead]):
        writer.write(Report({"a": layer, "forward": LayerReport(2, 2, [0], nan=layer.nan[:1])}, epoch), epoch)
    writer.close()
    found, _ = events(tmp_path / "run")
    for tag in ("dead_fraction", "dead_fraction/a", "zero_gradient_fraction/a", "dead_fraction/forward"):
        np.testing.assert_array_equal([value for _, value in found[tag]], [1, np.nan, 1])
    assert [(step, float(value)) for step, value in found["nan_fraction/a"]] == [(1, 1.0)]
    assert [(step, float(value)) for step, value in found["nan_fraction"]] == [(1, 1.0)]
    assert "zero_gradient_fraction/forward" not in found
    assert [step for step, _ in found["activation_rate/a"]] == [0, 2]  # a rate of 0 would look dead


def test_nothing_is_written_for_unmeasured_layers(tmp_path):
    writer = Summaries(str(tmp_path), "run")
    writer.write(Report({"a": LayerReport(0, 0, [0]), "b": LayerReport(1, 1, [1])}, 0), 0)
    writer.close()
    found, _ = events(tmp_path / "run")
    assert "dead_fraction/b" in found
    assert "dead_fraction/a" not in found
    assert len(glob.glob(str(tmp_path / "run" / "*"))) == 1
