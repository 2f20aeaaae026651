"""Faults of the data: what Keras survives is counted as trained, what it does not leaves nothing of ours behind."""

import re
import warnings
from functools import cache

import harm
import numpy as np
import oracle
import pytest
import tensorflow as tf

from relu_probe import ReluProbe, measure, watch
from relu_probe.utils.error_policy import reason

K = tf.keras
X, Y = harm.data()
FIXED = {"batch_size": None, "shuffle": False}  # of a fit on a dataset


def dataset(x=X, y=Y, **batch):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8, **batch)


def planted(value, x=X):
    """In one feature of one sample of the second batch."""
    x = x.copy()
    x[9, 1] = value
    return x


def attempt(model, callbacks, *args, **fit):
    """What the fit leaves, or the error it ends in; and our warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            left = harm.fitted(model, callbacks, *args, **fit)
        except Exception as error:
            left = error
    return left, [str(w.message) for w in caught if "relu_probe" in str(w.message)]


def net(**compile_args):
    model = harm.net()
    model.compile("sgd", "mse", **compile_args)
    return model


@cache
def kept(purpose):
    return (model := net()), [np.array(weight) for weight in model.get_weights()]  # tf_keras hands out its own memory


def again(purpose):
    """As new. One model for all that a training survives: to trace one costs more than to fit it."""
    model, weights = kept(purpose)
    model.set_weights(weights)
    for state in model.optimizer.variables:  # tf_keras keeps momenta, even of 0 * NaN
        if "learning_rate" not in state.name:
            state.assign(tf.zeros_like(tf.convert_to_tensor(state)))
    K.utils.set_random_seed(1)
    return model


@cache
def plain_fit():
    return {part: [np.array(value) for value in values] for part, values in harm.fitted(again("plain"), []).items()}


def fit(probe, *args, others=(), **more):
    """A fit is as it is without the probe, and nothing of ours is left. Our warnings."""
    model = again("watched")
    left, told = attempt(model, [probe, *others], *args, **more)
    assert_same(left, attempt(again("plain"), list(others), *args, **more)[0] if args or others else plain_fit())
    assert_nothing_left(model)
    return told


def assert_same(left, plain):
    if isinstance(plain, Exception):
        assert type(left) is type(plain)
        left, plain = (re.sub(r"[\d_]", "", reason(error)) for error in (left, plain))  # without the numbers in names
        assert left == plain
    else:
        assert harm.same(left, plain), left


def assert_nothing_left(model):
    assert "train_step" not in model.__dict__
    assert "relu_probe" not in type(model.train_function).__module__
    assert not any("call" in layer.__dict__ for layer in model.layers)


def stepped(x, y, epochs=2, before=lambda epoch, model: None):
    """Of each epoch the counts of the slow way: every batch as the step will see it, one step after another."""
    model, found = again("stepped"), []
    for epoch in range(epochs):
        before(epoch, model)
        parts = []
        for batch in oracle.batches(x, y, 8):
            parts.append(oracle.measure(model, [batch], training=True)["hidden"])
            model.train_on_batch(*batch)
        found.append({name: sum(part[name] for part in parts) for name in parts[0]})
    return found


def assert_trained(probe, expected, samples=24):
    assert len(probe.reports) == len(expected)
    for report, counts in zip(probe.reports, expected):
        oracle.assert_counts(report["hidden"], counts)
        assert (report.samples, report.incomplete) == (samples, "")


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_input_that_is_no_number(value):
    x, probe = planted(value), ReluProbe(strict=True)
    assert fit(probe, x, Y, shuffle=False) == []
    assert_trained(probe, stepped(x, Y))
    assert probe.report["hidden"].nan.all()
    assert probe.report["hidden"].active.sum() == 0  # a naive count calls them dead
    assert probe.report.dead_fraction == 0


def test_inputs_of_data_that_are_no_numbers():
    model = again("watched")
    for value in (np.nan, np.inf, -np.inf):
        x = planted(value)
        with np.errstate(invalid="ignore"):
            nan = np.isnan(x @ model.get_weights()[0]).any(axis=0)
        found = measure(model, (x, Y), batch_size=8)["hidden"]
        oracle.assert_counts(found, oracle.measure(model, oracle.batches(x, Y, 8))["hidden"])
        assert found.nan.tolist() == nan.tolist()
        assert nan.all() == np.isnan(value)
    probe = ReluProbe(data=(planted(np.nan), Y), strict=True)
    assert fit(probe) == []
    assert [report["hidden"].nan.all() for report in probe.reports] == [True, True]


def test_weights_that_turn_nan_in_mid_training():
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
        # With oneDNN the fused ReLU turns NaN into 0, and the others train on; without, all are lost in one step.
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


# --- nothing, too little, without end ---------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [dataset(X[:0], Y[:0]), dataset().filter(lambda x, y: False)])
def test_a_fit_on_nothing(empty):
    """As Keras has it: tf_keras refuses, Keras 3 trains no step. Nothing was seen, so nothing is dead."""
    probe = ReluProbe(strict=True)
    assert fit(probe, empty, None, **FIXED) == []
    assert [report.samples for report in probe.reports] == [0] * len(probe.reports)
    assert all(np.isnan(report.dead_fraction) for report in probe.reports)


def test_measuring_on_nothing():
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


def assert_stopped(why, data, make=None):
    """One warning, an incomplete report, a training unharmed; strict raises, and nothing is left."""
    model, probe = make() if make else again("watched"), ReluProbe(data=data)
    left, told = attempt(model, [probe])
    assert_same(left, harm.fitted(make(), []) if make else plain_fit())
    assert len(told) == 1
    assert told[0].startswith(f"relu_probe: measuring stopped: {why}"), told
    assert told[0].endswith("The training goes on. strict=True would raise.")
    assert probe.report.incomplete in told[0]
    assert probe.report.incomplete
    assert isinstance(attempt(model, [ReluProbe(data=data, strict=True)])[0], Exception)
    assert_nothing_left(model)


@pytest.mark.parametrize("size", [{}, {"drop_remainder": True}], ids=["any size", "fixed size"])
def test_a_dataset_that_ends_early(size):
    """With batches of a fixed size the step that found no batch counted one more all the same."""
    probe, data = ReluProbe(strict=True), dataset(**size)
    assert fit(probe, data, None, steps_per_epoch=5, **FIXED) == []
    expected = stepped(X, Y, len(probe.reports))
    assert_trained(probe, expected)
    assert probe.report["hidden"].last_active.max() == 3 * len(probe.reports) - 1
    with pytest.raises(AssertionError):
        oracle.assert_counts(probe.report["hidden"], {**expected[-1], "positions": 32})
    model = again("watched")
    assert measure(model, data).samples == len(X)
    run, iterator = tf.function(lambda batches: model(next(batches)[0])), iter(data)
    with watch(model) as watched:
        for _ in range(3):
            run(iterator)
        with pytest.raises(tf.errors.OutOfRangeError):
            run(iterator)
    assert watched.report().samples == len(X)


def test_data_that_ends_earlier_than_it_says():
    why = "FailedPreconditionError: Input dataset was expected to contain 5 elements but contained only 3"
    assert_stopped(why, dataset().apply(tf.data.experimental.assert_cardinality(5)))


def test_data_without_end():
    model, before = again("watched"), kept("watched")[1]
    for work in (
        lambda: measure(model, dataset().repeat()),
        lambda: harm.fitted(model, [ReluProbe(None, dataset().repeat())]),
    ):
        with pytest.raises(
            ValueError, match=r"data is infinite; expected an end\. Pass max_samples=\.\.\., or dataset"
        ):
            work()
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    hidden = dataset().repeat().filter(lambda x, y: True)  # does not say that it has no end
    for data in (dataset().repeat(), hidden):
        expected = oracle.measure(model, oracle.batches(X, Y, 8))["hidden"]
        oracle.assert_counts(measure(model, data, max_samples=len(X))["hidden"], expected)
