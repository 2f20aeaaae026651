"""Training with the probe is bit-identical to training without it when XLA compiles both."""

from contextlib import nullcontext

import harm
import numpy as np
import pytest
import tensorflow as tf
import zoo
from zoo import train_zoo

from relu_probe import ReluProbe, watch


@pytest.mark.parametrize("name", list(zoo.rows()))
def test_zoo(name):
    """Two full batches: XLA compiles each shape separately, and compilation takes most of the time."""
    harm.assert_no_harm(
        lambda callbacks: train_zoo(name, callbacks, samples=2 * zoo.BATCH, jit_compile=True), [ReluProbe(strict=True)]
    )


@pytest.mark.parametrize("name", ["sequential", "channels_first"])
def test_zoo_in_a_loop(name):
    row = zoo.rows()[name]
    x = tf.nest.map_structure(lambda a: tf.constant(a[: zoo.BATCH]), row.x())

    def train(watched):
        tf.keras.utils.set_random_seed(1)
        model = row.build()

        @tf.function(jit_compile=True)
        def step():
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x, training=True) - 0.3))
            for variable, gradient in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables)):
                variable.assign_sub(0.01 * gradient)

        with watch(model) if watched else nullcontext() as watching:
            step()
            step()
        assert watching is None or all(layer.with_gradient.any() for layer in watching.report().layers.values())
        return model.get_weights()

    for alone, watched in zip(train(False), train(True), strict=True):
        np.testing.assert_array_equal(alone, watched)
