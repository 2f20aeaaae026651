"""A variational autoencoder with a training step of its own, whose ReLUs are functions and layers, against brute force."""

import numpy as np
import pytest
import tensorflow as tf

from relu_probe import ReluProbe

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).standard_normal((16, 4)).astype("f")
NOISE = np.random.default_rng(1).standard_normal((16, 2)).astype("f")


class Encoder(L.Layer):
    """Returns the mean and the logarithm of the variance of the code; with a ReLU function."""

    def __init__(self):
        super().__init__(name="encoder")
        self.hidden, self.mean, self.log_variance = L.Dense(7), L.Dense(2), L.Dense(2)

    def call(self, x):
        a = tf.nn.relu(self.hidden(x))
        return self.mean(a), self.log_variance(a)


class VAE(K.Model):
    """The decoder has a ReLU layer. The noise of the code is the same in each step."""

    def __init__(self):
        super().__init__(name="vae")
        self.encoder, self.decoder, self.out = Encoder(), L.Dense(6, "relu", name="decoder"), L.Dense(4)

    def call(self, x):
        return self.out(self.decoder(self.encoder(x)[0]))

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            mean, log_variance = self.encoder(x)
            decoded = self.out(self.decoder(sample(mean, log_variance)))
            loss = loss_of(x, decoded, mean, log_variance)
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"loss": loss}


def sample(mean, log_variance):
    return mean + tf.exp(0.5 * log_variance) * NOISE


def loss_of(x, decoded, mean, log_variance):
    divergence = -0.5 * tf.reduce_mean(1 + log_variance - mean**2 - tf.exp(log_variance))
    return tf.reduce_mean((x - decoded) ** 2) + divergence


def expected_of(vae):
    """Name -> active positions and positions with a gradient, from the tensors of one eager step."""
    encoder = vae.encoder
    with tf.GradientTape(persistent=True) as tape:
        z = encoder.hidden(X)
        tape.watch(z)
        a = tf.maximum(z, 0.0)
        mean, log_variance = encoder.mean(a), encoder.log_variance(a)
        z_decoder = sample(mean, log_variance) @ vae.decoder.kernel + vae.decoder.bias
        loss = loss_of(X, vae.out(tf.maximum(z_decoder, 0.0)), mean, log_variance)
    gradients = {"encoder/relu": (z, tape.gradient(loss, z)), "decoder": (z_decoder, tape.gradient(loss, z_decoder))}
    return {
        name: [(values.numpy() > 0).sum(0), ((values.numpy() > 0) & (gradient.numpy() != 0)).sum(0)]
        for name, (values, gradient) in gradients.items()
    }


@pytest.mark.parametrize("jit", [False, True])
def test_a_vae_is_counted_with_the_gradients_that_train_it(jit):
    K.utils.set_random_seed(5)
    vae = VAE()
    vae(X)
    vae.encoder.hidden.bias.assign([-9, 9, 0, 0, 0, 0, 0])  # never, and always active
    vae.out.kernel.assign(tf.concat([tf.zeros((1, 4)), vae.out.kernel[1:]], 0))  # a blocked neuron
    vae.compile(K.optimizers.SGD(0.0), jit_compile=jit)
    expected = expected_of(vae)
    vae.fit(X, batch_size=16, shuffle=False, verbose=0, callbacks=[probe := ReluProbe(strict=True)])
    assert expected["encoder/relu"][0][0] == 0 < expected["decoder"][0][0]
    assert list(probe.report) == ["encoder/relu", "decoder"]
    for name, (active, with_gradient) in expected.items():
        np.testing.assert_array_equal(probe.report[name].active, active, err_msg=name)
        np.testing.assert_array_equal(probe.report[name].with_gradient, with_gradient, err_msg=name)
    assert expected["decoder"][1][0] == 0
    assert not probe.report.unseen
