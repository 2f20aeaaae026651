import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def model(data):
    tf.keras.utils.set_random_seed(0)
    layers = [tf.keras.Input((8,)), tf.keras.layers.Dense(16, "relu", name="hidden"), tf.keras.layers.Dense(1)]
    model = tf.keras.Sequential(layers)
    model.compile("adam", "mse")
    model.fit(*data, epochs=3, verbose=0)
    return model


def test_the_model_learns_with_all_its_neurons(assert_alive, model, data):
    assert_alive(model, data)


def test_the_first_layer_passes_gradients(assert_alive, model, data):
    report = assert_alive(model, data, max_dead=0.05, max_zero_gradient=0.05, layers="hidden")
    assert report["hidden"].activation_rate.max() < 1.0  # a neuron that is always on is linear
