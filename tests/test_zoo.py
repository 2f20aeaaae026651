"""Every structure of the zoo: counts equal the oracle's, and nothing is left behind."""

import numpy as np
import oracle
import pytest
import tensorflow as tf
import zoo

from relu_probe import ReluProbe, measure

OWN_STEP = {"teacher_and_student", "gan"}  # the loss of these is not the compiled one: tested below
PLAIN = [name for name in zoo.rows() if name not in OWN_STEP]


def attributes(model):
    """What stands on the model and on every layer of it."""
    layers = [model, *model._flatten_layers(include_self=False)]
    return [
        {k: id(v) for k, v in vars(layer).items() if k in ("call", "train_step", "train_function")} for layer in layers
    ]


def fitted(row, model, **more):
    probe = ReluProbe(strict=True)
    model.fit(row.x(), row.y(), batch_size=zoo.BATCH, shuffle=False, verbose=0, callbacks=[probe], **more)
    return probe.report


@pytest.mark.parametrize("name", PLAIN)
def test_fit_counts_what_the_oracle_counts(name):
    row = zoo.rows()[name]
    model = row.build()
    model(tf.nest.map_structure(lambda a: a[:2], row.x()))
    frozen = name == "frozen"
    expected = oracle.measure(model, oracle.batches(row.x(), row.y(), zoo.BATCH), training=True)
    report = fitted(row, model)
    assert tuple(report.layers) == row.keys
    for key, layer in report.layers.items():
        assert layer.samples == zoo.SAMPLES
        assert layer.positions == zoo.SAMPLES * row.places.get(key, 1)
        if frozen and key == "frozen":
            expected[key]["with_gradient"] = None
        oracle.assert_counts(layer, expected[key])
    assert [layer.frozen for layer in report.layers.values()] == [frozen and key == "frozen" for key in row.keys]


@pytest.mark.parametrize("name", PLAIN)
def test_measure_counts_what_the_oracle_counts(name):
    row = zoo.rows()[name]
    model = row.build()
    model(tf.nest.map_structure(lambda a: a[:2], row.x()))
    expected = oracle.measure(model, oracle.batches(row.x(), row.y(), 5))
    report = measure(model, (row.x(), row.y()), batch_size=7)
    assert tuple(report.layers) == row.keys
    for key, layer in report.layers.items():
        oracle.assert_counts(layer, expected[key])


@pytest.mark.parametrize("name", list(zoo.rows()))
def test_nothing_is_left_behind(name, tmp_path):
    row = zoo.rows()[name]
    model = row.build()
    model.fit(row.x(), row.y(), batch_size=zoo.BATCH, verbose=0)
    before = attributes(model)
    fitted(row, model)
    assert attributes(model) == before
    if not row.saves:
        return
    path = str(tmp_path / "model.keras")
    model.save(path)
    loaded = tf.keras.models.load_model(path)
    clone = tf.keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for other in (loaded, clone):
        flat = zip(
            tf.nest.flatten(other.predict(row.x(), verbose=0)), tf.nest.flatten(model.predict(row.x(), verbose=0))
        )
        assert all(np.array_equal(a, b) for a, b in flat)


def test_a_teacher_is_never_trained_and_a_student_is():
    row = zoo.rows()["teacher_and_student"]
    report = fitted(row, row.build())
    assert report["taught"].with_gradient is None
    assert report["taught"].active[0] == 0
    assert report["learned"].with_gradient[1:].all()
    assert report["learned"].dead.tolist() == [True, False, False, False]


def test_two_backward_passes_through_one_call_count_a_position_once():
    """The GAN's persistent tape goes twice through the discriminator's call on the fake batch."""
    row = zoo.rows()["gan"]
    report = fitted(row, row.build())
    judged = report["judged"]
    assert judged.samples == zoo.SAMPLES
    assert judged.positions == 2 * zoo.SAMPLES
    np.testing.assert_array_equal(judged.with_gradient, judged.active)
    np.testing.assert_array_equal(report["made"].with_gradient > 0, report["made"].active > 0)


@pytest.mark.parametrize("mistake", ["dL/da for dL/dz", "a dropped last batch", "the last axis"])
def test_the_comparison_rejects(mistake):
    """The oracle's own saboteurs: each planted mistake must be seen."""
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
        oracle.assert_counts(report[key], expected[key])
