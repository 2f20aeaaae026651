"""Fits on faulty data, with and without the probe, and what they must have in common."""

import re
import warnings
from functools import cache

import harm
import numpy as np
import oracle
import tensorflow as tf

from relu_probe import ReluProbe
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
