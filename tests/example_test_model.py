import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="module")
def trained():
    tf.keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 8))
    layers = [tf.keras.Input((8,)), tf.keras.layers.Dense(16, "relu", name="hidden"), tf.keras.layers.Dense(1)]
    model = tf.keras.Sequential(layers)
    model.compile("adam", "mse")
    model.fit(x, y := x.sum(axis=1, keepdims=True), epochs=3, verbose=0)
    return model, (x, y)


def test_the_model_learns_with_all_its_neurons(assert_alive, trained):
    report = assert_alive(*trained, max_dead=0.05, max_zero_gradient=0.05)
    assert report["hidden"].activation_rate.max() < 1.0  # a neuron that is always on is linear
