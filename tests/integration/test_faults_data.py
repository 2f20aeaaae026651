"""Faults in the data: batches that Keras trains on are counted, and after Keras's own errors no probe is left behind."""

import harm
import numpy as np
import oracle
import pytest
import tensorflow as tf
from assertions import assert_counts
from faulty_data import (
    FIXED,
    X,
    Y,
    again,
    assert_stopped,
    assert_trained,
    dataset,
    fit,
    kept,
    planted,
    stepped,
)

from relu_probe import ReluProbe, measure, watch

K = tf.keras


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_nan_or_infinite_input(value):
    x, probe = planted(value), ReluProbe(strict=True)
    assert fit(probe, x, Y, shuffle=False) == []
    assert_trained(probe, stepped(x, Y))
    assert probe.report["hidden"].nan.all()
    assert probe.report["hidden"].active.sum() == 0  # a naive count would call the neurons dead
    assert probe.report.nan_fraction == 1
    assert np.isnan(probe.report.dead_fraction)


def test_nan_and_infinite_inputs_of_measured_data():
    model = again("watched")
    for value in (np.nan, np.inf, -np.inf):
        x = planted(value)
        with np.errstate(invalid="ignore"):
            nan = np.isnan(x @ model.get_weights()[0]).any(axis=0)
        found = measure(model, (x, Y), batch_size=8)["hidden"]
        assert_counts(found, oracle.measure(model, oracle.batches(x, Y, 8))["hidden"])
        assert found.nan.tolist() == nan.tolist()
        assert nan.all() == np.isnan(value)
    probe = ReluProbe(data=(planted(np.nan), Y), strict=True)
    assert fit(probe) == []
    assert [report["hidden"].nan.all() for report in probe.reports] == [True, True]


def test_weights_that_become_nan_during_training():
    def spoil(epoch, model):
        if epoch == 1:
            kernel, *others = model.get_weights()
            kernel[:, 3] = np.nan
            model.set_weights([kernel, *others])

    class Spoil(K.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            spoil(epoch, self.model)

    probe, measured = ReluProbe(strict=True), ReluProbe(data=(X, Y), name="data", strict=True)
    assert fit(probe, X, Y, others=[Spoil()], shuffle=False) == []
    assert_trained(probe, stepped(X, Y, 2, spoil))
    assert fit(measured, X, Y, others=[Spoil()], shuffle=False) == []
    for one in (probe, measured):
        assert not one.reports[0]["hidden"].nan.any()
        # With oneDNN, the fused ReLU turns NaN into 0, and the other neurons train on. Without it, one step spoils all.
        lost = np.isnan(one.model.get_weights()[0]).any(axis=0)
        assert lost[3]
        assert np.array_equal(one.report["hidden"].nan, lost)
        assert one.report.dead_fraction == 0


@pytest.mark.parametrize("rows", [slice(8, 16), slice(None)], ids=["one batch", "all"])
def test_batches_of_zeros(rows):
    x, probe = X.copy(), ReluProbe(strict=True)
    x[rows] = 0
    assert fit(probe, x, Y, shuffle=False) == []
    assert_trained(probe, stepped(x, Y))
    assert probe.reports[0].dead_fraction == (rows == slice(None))


def test_one_sample():
    x, y, probe, data = X[:1], Y[:1], ReluProbe(strict=True), ReluProbe(data=(X[:1], Y[:1]), strict=True)
    assert fit(probe, x, y) == fit(data) == []
    assert_trained(probe, stepped(x, y), samples=1)
    assert data.report.samples == 1


# --- empty, too short, infinite ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [dataset(X[:0], Y[:0]), dataset().filter(lambda x, y: False)])
def test_a_fit_on_empty_data(empty):
    """tf_keras raises an error, Keras 3 trains no step. No sample was seen, so no neuron is dead."""
    probe = ReluProbe(strict=True)
    assert fit(probe, empty, None, **FIXED) == []
    assert [report.samples for report in probe.reports] == [0] * len(probe.reports)
    assert all(np.isnan(report.dead_fraction) for report in probe.reports)


def test_measuring_empty_data():
    model, before = again("watched"), kept("watched")[1]
    for data in ((X[:0], Y[:0]), dataset(X[:0], Y[:0])):
        for work in (
            lambda data=data: measure(model, data),
            lambda data=data: harm.fitted(model, [ReluProbe(None, data)]),
        ):
            with pytest.raises(ValueError, match=r"data is empty \(0 .*expected at least 1"):
                work()
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))  # before the first step
    assert_stopped("ValueError: data is empty (0 samples), expected at least 1.", dataset().filter(lambda x, y: False))


@pytest.mark.parametrize("size", [{}, {"drop_remainder": True}], ids=["any size", "fixed size"])
def test_a_dataset_that_ends_early(size):
    """With a fixed batch size, the step that found no batch once counted a batch all the same."""
    probe, data = ReluProbe(strict=True), dataset(**size)
    assert fit(probe, data, None, steps_per_epoch=5, **FIXED) == []
    expected = stepped(X, Y, len(probe.reports))
    assert_trained(probe, expected)
    assert probe.report["hidden"].last_active.max() == 3 * len(probe.reports) - 1
    with pytest.raises(AssertionError):
        assert_counts(probe.report["hidden"], {**expected[-1], "positions": 32})
    model = again("watched")
    assert measure(model, data).samples == len(X)
    run, iterator = tf.function(lambda batches: model(next(batches)[0])), iter(data)
    with watch(model) as watched:
        for _ in range(3):
            run(iterator)
        with pytest.raises(tf.errors.OutOfRangeError):
            run(iterator)
    assert watched.report().samples == len(X)


def test_data_with_fewer_batches_than_its_cardinality():
    why = "FailedPreconditionError: Input dataset was expected to contain 5 elements but contained only 3"
    assert_stopped(why, dataset().apply(tf.data.experimental.assert_cardinality(5)))


def test_infinite_data():
    model, before = again("watched"), kept("watched")[1]
    for work in (
        lambda: measure(model, dataset().repeat()),
        lambda: harm.fitted(model, [ReluProbe(None, dataset().repeat())]),
    ):
        with pytest.raises(
            ValueError, match=r"data is infinite; expected a finite dataset\. Pass max_samples=\.\.\., or dataset"
        ):
            work()
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    hidden = dataset().repeat().filter(lambda x, y: True)  # its cardinality is unknown
    for data in (dataset().repeat(), hidden):
        expected = oracle.measure(model, oracle.batches(X, Y, 8))["hidden"]
        assert_counts(measure(model, data, max_samples=len(X))["hidden"], expected)
