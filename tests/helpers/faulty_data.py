"""Fits on faulty data with and without the probe, and assertions on what they have in common."""

import re
import warnings
from functools import cache

import harm
import numpy as np
import oracle
import tensorflow as tf
from assertions import assert_counts

from relu_probe import ReluProbe
from relu_probe.utils.error_policy import reason

K = tf.keras
X, Y = harm.data()
FIXED = {"batch_size": None, "shuffle": False}  # arguments of a fit on a dataset


def dataset(x=X, y=Y, **batch):
    """Returns the data in batches of 8."""
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8, **batch)


def planted(value, x=X):
    """Returns a copy of `x` with `value` in one feature of one sample of the second batch."""
    x = x.copy()
    x[9, 1] = value
    return x


def attempt(model, callbacks, *args, **fit):
    """Returns the state after the fit, or the error that ended it; and the probe's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            left = harm.fitted(model, callbacks, *args, **fit)
        except Exception as error:
            left = error
    return left, [str(w.message) for w in caught if "relu_probe" in str(w.message)]


def net(**compile_args):
    """Returns the small model of `harm`, compiled with plain SGD."""
    model = harm.net()
    model.compile("sgd", "mse", **compile_args)
    return model


@cache
def kept(purpose):
    """Returns one model per purpose, and its initial weights (copies: tf_keras returns its own memory)."""
    return (model := net()), [np.array(weight) for weight in model.get_weights()]


def again(purpose):
    """Returns the model of this purpose, reset to its initial state.

    All faults that a training survives share one model, because tracing a model takes longer than fitting it.
    """
    model, weights = kept(purpose)
    model.set_weights(weights)
    for state in model.optimizer.variables:  # tf_keras keeps momenta, even those that 0 * NaN made NaN
        if "learning_rate" not in state.name:
            state.assign(tf.zeros_like(tf.convert_to_tensor(state)))
    K.utils.set_random_seed(1)
    return model


@cache
def plain_fit():
    """Returns the state after a fit on good data without the probe."""
    return {part: [np.array(value) for value in values] for part, values in harm.fitted(again("plain"), []).items()}


def fit(probe, *args, others=(), **more):
    """Checks that a fit equals one without the probe, which leaves nothing behind. Returns the probe's warnings."""
    model = again("watched")
    left, warned = attempt(model, [probe, *others], *args, **more)
    assert_same(left, attempt(again("plain"), list(others), *args, **more)[0] if args or others else plain_fit())
    assert_nothing_left(model)
    return warned


def assert_same(left, plain):
    """Two fits left the same state, or ended with the same error."""
    if isinstance(plain, Exception):
        assert type(left) is type(plain)
        left, plain = (re.sub(r"[\d_]", "", reason(error)) for error in (left, plain))  # without the numbers in names
        assert left == plain
    else:
        assert harm.same(left, plain), left


def assert_nothing_left(model):
    """The model and its layers have no attribute of the probe."""
    assert "train_step" not in model.__dict__
    assert "relu_probe" not in type(model.train_function).__module__
    assert not any("call" in layer.__dict__ for layer in model.layers)


def stepped(x, y, epochs=2, before=lambda epoch, model: None):
    """Returns the oracle's counts of each epoch: each batch is measured just before the step that trains on it."""
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
    """The probe's reports are complete and have the expected counts, one report for each epoch."""
    assert len(probe.reports) == len(expected)
    for report, counts in zip(probe.reports, expected):
        assert_counts(report["hidden"], counts)
        assert (report.samples, report.incomplete) == (samples, "")


def assert_stopped(why, data, make=None):
    """Faulty `data=` causes one warning and an incomplete report, and leaves the training as it is; `strict=True` raises."""
    model, probe = make() if make else again("watched"), ReluProbe(data=data)
    left, warned = attempt(model, [probe])
    assert_same(left, harm.fitted(make(), []) if make else plain_fit())
    assert len(warned) == 1
    assert warned[0].startswith(f"relu_probe: measuring stopped: {why}"), warned
    assert warned[0].endswith("The training goes on. strict=True would raise.")
    assert probe.report.incomplete in warned[0]
    assert probe.report.incomplete
    assert isinstance(attempt(model, [ReluProbe(data=data, strict=True)])[0], Exception)
    assert_nothing_left(model)
