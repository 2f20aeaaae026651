"""Tests of a trainable prompt before a frozen body: a gradient flows through the body, so it is not frozen."""

import numpy as np
import pytest
import tensorflow as tf

from relu_probe import ReluProbe

K, L = tf.keras, tf.keras.layers
X, Y = np.random.default_rng(0).standard_normal((8, 3)).astype("f"), np.ones((8, 1), "f")


class Prompt(L.Layer):
    """Adds a trained vector."""

    def build(self, shape):
        self.prompt = self.add_weight(shape=(3,), initializer="ones", name="prompt")

    def call(self, x):
        return x + self.prompt


class Prompted(K.Model):
    """A functional model whose own training step adds the prompt, a weight of the model itself."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x + self.prompt) - y) ** 2)
        self.optimizer.apply_gradients(zip(tape.gradient(loss, [self.prompt]), [self.prompt]))
        return {"loss": loss}


def layers():
    return [L.Dense(4, "relu", bias_initializer="ones", name="relu", trainable=False), L.Dense(1, trainable=False)]


def prompt_in_a_step():
    x = K.Input((3,))
    hidden, out = layers()
    model = Prompted(x, out(hidden(x)))
    model.prompt = model.add_weight(shape=(3,), initializer="ones", name="prompt")
    return model


def prompt_in_a_layer():
    return K.Sequential([K.Input((3,)), Prompt(), *layers()])


def prompt_before_a_model():
    return K.Sequential([K.Input((3,)), Prompt(), K.Sequential([K.Input((3,)), *layers()])])


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("make", [prompt_in_a_step, prompt_in_a_layer, prompt_before_a_model])
def test_a_body_behind_a_prompt_is_not_frozen(make, eager):
    model, probe = make(), ReluProbe(strict=True)
    model.compile(K.optimizers.SGD(0.0), "mse", run_eagerly=eager)
    model.fit(X, Y, verbose=0, callbacks=[probe])
    layer = probe.report["relu"]
    assert layer.with_gradient.tolist() == layer.active.tolist()
    assert not layer.frozen


@pytest.mark.parametrize("eager", [False, True])
def test_a_body_without_a_prompt_is_frozen(eager):
    """The head behind it is trained."""
    model, probe = K.Sequential([K.Input((3,)), *layers(), L.Dense(1)]), ReluProbe(strict=True)
    model.compile(K.optimizers.SGD(0.0), "mse", run_eagerly=eager)
    model.fit(X, Y, verbose=0, callbacks=[probe])
    layer = probe.report["relu"]
    assert layer.with_gradient is None
    assert layer.frozen
