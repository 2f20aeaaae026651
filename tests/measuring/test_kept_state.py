"""Counters and traces that are kept for a model are replaced once the model's steps are run in another way."""

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe, measure, watch
from relu_probe.measuring.model_state import ModelState

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).standard_normal((32, 3)).astype("f")
Y = np.ones((32, 1), "f")
EAGER = {"run_eagerly": True}
JIT = {"jit_compile": True}
CHANGES = {
    "XLA": ({"jit_compile": False}, JIT),
    "eager": (JIT, EAGER),
    "steps per execution": ({}, {"steps_per_execution": 2}),
}


def fitted(model, probe=None, **compile_args):
    model.compile(K.optimizers.SGD(0.0), "mse", **compile_args)
    probe = probe or ReluProbe(strict=True)
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[probe])
    return probe.report["hidden"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_fit_that_is_compiled_differently_counts_the_same_with_counters_of_its_own(change):
    model = sequential(3, L.Dense(1024, "relu", name="hidden"), L.Dense(1))
    before, after = CHANGES[change]
    first = fitted(model, **before)
    kept = ModelState.of(model).training_counters
    second = fitted(model, **after)
    assert ModelState.of(model).training_counters is not kept
    assert first.samples == second.samples == 32
    np.testing.assert_allclose(first.active, second.active, atol=1)  # XLA may round a sum near zero differently
    assert fitted(model, **after).samples == 32


def test_equal_settings_keep_the_counters():
    model = sequential(3, L.Dense(4, "relu", name="hidden"), L.Dense(1))
    fitted(model)
    kept = ModelState.of(model).training_counters
    fitted(model)
    assert ModelState.of(model).training_counters is kept


@pytest.mark.skipif(not hasattr(K, "ops"), reason="tf_keras cannot change the precision of a layer")
def test_a_measurement_follows_the_precision_of_a_layer():
    model = sequential(3, L.Dense(4, "relu", name="hidden"), L.Dense(1))
    model.layers[0].set_weights([np.full((3, 4), 1e-9, "f"), np.zeros(4, "f")])
    assert measure(model, np.ones((1, 3), "f"))["hidden"].dead_fraction == 0
    model.layers[0].dtype_policy = "mixed_float16"  # 1e-9 underflows to zero
    assert measure(model, np.ones((1, 3), "f"))["hidden"].dead_fraction == 1


def test_a_watch_inside_of_a_strategy_after_one_outside():
    model = sequential(3, L.Dense(4, "relu", name="hidden"), L.Dense(1))
    with watch(model):
        model(X)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope(), watch(model) as w:
        model(X)
        assert w.report().samples == 32
