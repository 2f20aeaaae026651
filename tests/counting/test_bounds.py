"""Tests of bounded ReLUs: whether a gradient passes where the pre-activation equals the bound depends on the operation."""

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe, measure, watch

K, L = tf.keras, tf.keras.layers
KINDS = {  # how the ReLU is written, with a bound c -> (layers, whether a gradient passes where z == c)
    "ReLU6": (lambda c: [L.ReLU(6.0, name="r")], False),
    "tf.nn.relu6": (lambda c: [L.Dense(3, tf.nn.relu6, kernel_initializer="identity", name="r")], False),
    "a layer": (lambda c: [L.ReLU(max_value=c, name="r")], True),
    "an activation layer": (lambda c: [L.Dense(3, L.ReLU(max_value=c), kernel_initializer="identity", name="r")], True),
    "a minimum": (lambda c: [L.Activation(lambda x: tf.minimum(tf.nn.relu(x), c), name="r")], True),
    "a minimum before": (lambda c: [L.Activation(lambda x: tf.nn.relu(tf.minimum(x, c)), name="r")], True),
    "clip_by_value": (lambda c: [L.Activation(lambda x: tf.clip_by_value(x, 0.0, c), name="r")], True),
}


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("name", list(KINDS))
def test_the_gradient_at_the_bound(name, run_eagerly):
    """Three neurons: below, at and above the bound."""
    layers, passes = KINDS[name]
    bound = 6.0 if not passes else 2.0
    x, y = np.array([[bound - 1, bound, bound + 1]] * 2, "f"), np.full((2, 1), 99.0, "f")
    model = sequential(3, *layers(bound), L.Dense(1, kernel_initializer="ones"), run_eagerly=run_eagerly)
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        loss = tf.reduce_sum(model(inputs))
    expected = np.count_nonzero(tape.gradient(loss, inputs), axis=0).tolist()
    assert expected == [2, 2 * passes, 0]
    assert measure(model, (x, y))["r"].with_gradient.tolist() == expected
    before = L.Dense(3, kernel_initializer="identity")
    model = sequential(3, before, *layers(bound), L.Dense(1, kernel_initializer="ones"), run_eagerly=run_eagerly)
    model.fit(x, y, verbose=0, callbacks=[probe := ReluProbe(strict=True)])
    assert probe.report["r"].with_gradient.tolist() == expected


@pytest.mark.parametrize("name", list(KINDS))
def test_the_gradient_at_the_bound_in_an_eager_loop(name):
    layers, passes = KINDS[name]
    bound = 6.0 if not passes else 2.0
    before = L.Dense(3, kernel_initializer="identity")
    model = sequential(3, before, *layers(bound), L.Dense(1, kernel_initializer="ones"))
    with watch(model) as w, tf.GradientTape() as tape:
        tape.watch(x := tf.constant([[bound - 1, bound, bound + 1]] * 2))
        loss = tf.reduce_sum(model(x))
        expected = np.count_nonzero(tape.gradient(loss, x), axis=0).tolist()
    assert w.report()["r"].with_gradient.tolist() == expected == [2, 2 * passes, 0]
