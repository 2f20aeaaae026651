"""Tests of every model structure in the zoo: counts equal the oracle's, and the probe leaves nothing on the model."""

import numpy as np
import oracle
import pytest
import tensorflow as tf
import zoo
from assertions import assert_counts, assert_report

from relu_probe import ReluProbe, measure

OWN_STEP = {"teacher_and_student", "gan"}  # models that do not train on the compiled loss: tested below


def attributes(model):
    """Returns the identity of the attributes that a probe may replace, for the model and each layer."""
    layers = [model, *model._flatten_layers(include_self=False)]
    return [
        {k: id(v) for k, v in vars(layer).items() if k in ("call", "train_step", "train_function")} for layer in layers
    ]


def fitted(row, model, **more):
    probe = ReluProbe(strict=True)
    model.fit(row.x(), row.y(), batch_size=zoo.BATCH, shuffle=False, verbose=0, callbacks=[probe], **more)
    return probe.report


def assert_row(row, report, expected):
    assert tuple(report) == row.keys
    assert_report(report, expected, zoo.SAMPLES)
    for key, layer in report.layers.items():
        assert layer.positions == zoo.SAMPLES * row.places.get(key, 1)


def assert_saves_and_clones(model, x, path):
    model.save(path)
    clone = tf.keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    expected = tf.nest.flatten(model(x, training=False))
    for other in (tf.keras.models.load_model(path), clone):
        assert all(np.array_equal(a, b) for a, b in zip(tf.nest.flatten(other(x, training=False)), expected))


@pytest.mark.parametrize("name", list(zoo.rows()))
def test_fit_and_measure_equal_the_oracle_and_leave_nothing_behind(name, tmp_path):
    """Each row uses one model for everything, because building and tracing take most of the time."""
    row = zoo.rows()[name]
    model, x = row.build(), tf.nest.map_structure(tf.constant, row.x())
    batches = oracle.batches(row.x(), row.y(), zoo.BATCH)
    model.fit(row.x(), row.y(), batch_size=zoo.BATCH, verbose=0)
    before = attributes(model)
    if name in OWN_STEP:
        fitted(row, model)
    else:
        expected = oracle.measure(model, batches, training=True)
        report, frozen = fitted(row, model), [key for key in row.keys if key == "frozen"]
        expected.update({key: {**expected[key], "with_gradient": None} for key in frozen})
        assert_row(row, report, expected)
        assert [key for key, layer in report.layers.items() if layer.frozen] == frozen
        expected = oracle.measure(model, batches)
        assert_row(row, measure(model, (row.x(), row.y()), batch_size=7), expected)
    assert attributes(model) == before
    if row.saves:
        assert_saves_and_clones(model, x, str(tmp_path / "model.keras"))


def test_only_the_student_of_a_teacher_gets_gradients():
    row = zoo.rows()["teacher_and_student"]
    report = fitted(row, row.build())
    assert report["taught"].with_gradient.tolist() == [0] * 5  # no path from the loss
    assert report["taught"].active[0] == 0
    assert report["learned"].with_gradient[1:].all()
    assert report["learned"].dead.tolist() == [True, False, False, False]


def test_two_backward_passes_through_one_call_count_a_position_once():
    """The persistent tape of the GAN goes backwards twice through the discriminator's call on the fake batch."""
    row = zoo.rows()["gan"]
    report = fitted(row, row.build())
    judged = report["judged"]
    assert judged.samples == zoo.SAMPLES
    assert judged.positions == 2 * zoo.SAMPLES
    np.testing.assert_array_equal(judged.with_gradient, judged.active)
    np.testing.assert_array_equal(report["made"].with_gradient > 0, report["made"].active > 0)


@pytest.mark.once
@pytest.mark.parametrize("mistake", ["dL/da for dL/dz", "a dropped last batch", "the last axis"])
def test_the_comparison_rejects(mistake):
    """Each mistake planted in the expected counts must fail the comparison."""
    row = zoo.rows()["channels_first" if mistake == "the last axis" else "sequential"]
    model = row.build()
    batches = oracle.batches(row.x(), row.y(), zoo.BATCH)
    expected = oracle.measure(model, batches[:-1] if mistake == "a dropped last batch" else batches)
    report = measure(model, (row.x(), row.y()))
    key = row.keys[0]
    if mistake == "dL/da for dL/dz":
        expected[key]["with_gradient"] = np.full_like(expected[key]["active"], zoo.SAMPLES)
    if mistake == "the last axis":
        expected[key]["active"] = expected[key]["active"][::-1]
    with pytest.raises(AssertionError):
        assert_counts(report[key], expected[key])
