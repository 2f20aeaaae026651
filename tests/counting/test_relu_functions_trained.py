"""ReLUs that are written as functions, in training steps of the user's; unharmed trainings; planted mistakes."""

import function_oracle
import harm
import numpy as np
import pytest
import tensorflow as tf
from function_models import build

from relu_probe import ReluProbe

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).standard_normal((16, 3)).astype("f")


class Network(K.Model):
    """A network of two matrix products with a ReLU function between them."""

    def __init__(self, units, outputs, name):
        super().__init__(name=name)
        self.a, self.b = L.Dense(units), L.Dense(outputs)

    def build(self, shape):
        self.a.build(shape)
        self.b.build((None, self.a.units))
        self.built = True

    def call(self, t):
        return self.b(tf.nn.relu(self.a(t)))


def noise_of(real):
    return 2.0 * real[:, :2]


class GAN(K.Model):
    """A generator and a discriminator with a training step of their own; with a gradient penalty, as in WGAN-GP."""

    def __init__(self, *, penalty):
        super().__init__(name="gan")
        self.generator, self.discriminator = Network(6, 3, "generator"), Network(5, 1, "discriminator")
        self.generator.build((None, 2))
        self.discriminator.build((None, 3))
        self.penalty = penalty

    def compile(self, rate=0.0, **more):
        super().compile(K.optimizers.SGD(rate), **more)
        self.other = K.optimizers.SGD(rate)

    def discriminator_loss(self, real):
        fake = self.generator(noise_of(real))
        loss = tf.reduce_mean(self.discriminator(fake)) - tf.reduce_mean(self.discriminator(real))
        if self.penalty:
            between = (real + fake) / 2
            with tf.GradientTape() as tape:
                tape.watch(between)
                score = self.discriminator(between)
            slope = tf.norm(tape.gradient(score, between), axis=1)
            loss += tf.reduce_mean((slope - 1.0) ** 2)
        return loss

    def generator_loss(self, real):
        return -tf.reduce_mean(self.discriminator(self.generator(noise_of(real))))

    def call(self, t):
        return self.discriminator(t)

    def train_step(self, real):
        real = real[0] if isinstance(real, tuple) else real
        weights = self.discriminator.trainable_variables
        with tf.GradientTape() as tape:
            loss = self.discriminator_loss(real)
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        weights = self.generator.trainable_variables
        with tf.GradientTape() as tape:
            made = self.generator_loss(real)
        self.other.apply_gradients(zip(tape.gradient(made, weights), weights))
        return {"loss": loss, "made": made}


def per_neuron(masks):
    return sum(np.asarray(mask).sum(0) for mask in masks)


def expected_of(gan):
    """The counts of one step, by NumPy: z, a and dL/da of each call."""
    d, g = gan.discriminator, gan.generator
    (w1, b1), (w2, _) = (layer.get_weights() for layer in (d.a, d.b))
    hidden = lambda x: np.maximum(x @ w1 + b1, 0)  # noqa: E731
    fake = np.asarray(g(noise_of(X)))
    made = np.maximum(np.asarray(g.a(noise_of(X))), 0)
    calls = [hidden(fake), hidden(X), *([hidden((X + fake) / 2)] if gan.penalty else []), hidden(fake)]
    gradients = [
        (a > 0) & (w2[:, 0] != 0) for a in calls[:-1]
    ]  # the generator's step uses no gradient of the discriminator
    gradients.append((calls[-1] > 0) & (w2[:, 0] != 0))  # but it flows through it
    with tf.GradientTape() as tape:
        z = g.a(noise_of(X))
        tape.watch(z)
        loss = -tf.reduce_mean(d(g.b(tf.nn.relu(z))))
    through = np.asarray(tape.gradient(loss, z)) != 0
    return {
        "generator/relu": (2 * len(X), per_neuron([made > 0] * 2), per_neuron([through])),
        "discriminator/relu": (len(calls) * len(X), per_neuron([a > 0 for a in calls]), per_neuron(gradients)),
    }


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("penalty", [False, True])
def test_a_gan_is_counted_with_the_gradients_that_train_it(penalty, jit):
    """The second derivatives of a gradient penalty are no gradients of a loss by the pre-activation."""
    K.utils.set_random_seed(2)
    gan = GAN(penalty=penalty)
    gan.compile(jit_compile=jit)
    gan.fit(X, batch_size=16, verbose=0, callbacks=[probe := ReluProbe(strict=True)])
    for key, (positions, active, with_gradient) in expected_of(gan).items():
        layer = probe.report[key]
        assert layer.positions == positions
        np.testing.assert_array_equal(layer.active, active)
        np.testing.assert_array_equal(layer.with_gradient, with_gradient, err_msg=key)


def test_a_persistent_tape_counts_the_union_of_its_gradients():
    class TwoLosses(Network):
        def train_step(self, data):
            x, _ = data
            with tf.GradientTape(persistent=True) as tape:
                out = self(x, training=True)
                first, second = tf.reduce_sum(out[:, 0]), tf.reduce_sum(out[:, 1])
            weights = self.trainable_variables
            gradients = [a + b for a, b in zip(tape.gradient(first, weights), tape.gradient(second, weights))]
            self.optimizer.apply_gradients(zip(gradients, weights))
            return {"loss": first + second}

    model = TwoLosses(4, 2, "two")
    model.build((None, 3))
    model.b.kernel.assign([[0, 0], [1, 0], [0, 1], [1, 1]])
    model.compile(K.optimizers.SGD(0.0), "mse")
    model.fit(X, np.ones((16, 2), "f"), batch_size=16, verbose=0, callbacks=[probe := ReluProbe(strict=True)])
    active = (np.asarray(model.a(X)) > 0).sum(0)
    np.testing.assert_array_equal(probe.report["relu"].active, active)
    np.testing.assert_array_equal(probe.report["relu"].with_gradient, active * [0, 1, 1, 1])


# --- no harm ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["identity block", "pyramid", "made inside", "mixed"])
@pytest.mark.parametrize(("jit", "policy"), [(False, "float32"), (True, "float32"), (False, "mixed_float16")])
def test_a_training_is_bit_identical(name, jit, policy):
    before = K.mixed_precision.global_policy()
    K.mixed_precision.set_global_policy(policy)
    try:
        left = []
        for callbacks in ([], [ReluProbe(strict=True)]):
            model, x, y, _ = build(name)
            model.compile(K.optimizers.Adam(0.01), "mse", jit_compile=jit)
            left.append(harm.fitted(model, callbacks, x, y, batch_size=6))
            assert harm.clean(model)
    finally:
        K.mixed_precision.set_global_policy(before)
    assert harm.same(*left)


# --- planted mistakes -------------------------------------------------------------------------------------------------


def trained(name):
    model, x, y, keys = build(name)
    expected = function_oracle.counts(model, x, y, keys, training=True)
    model.fit(x, y, batch_size=len(x), verbose=0, callbacks=[probe := ReluProbe(strict=True)])
    function_oracle.assert_counted(probe.report, expected)


def _counted_twice(counts):
    def twice(model, x, y, keys, *, training):
        found = counts(model, x, y, keys, training=training)
        found[keys[-1]] = {name: 2 * value for name, value in found[keys[-1]].items()}
        return found

    return twice


def _of_a_scratch_graph(counts):
    def more(model, x, y, keys, *, training):
        found = counts(model, x, y, keys, training=training)
        return found | {"scratch/relu": found[keys[0]]}

    return more


MISTAKES = {
    "dL/da for dL/dz": ("passes", lambda _: lambda a, gradient, stopped: gradient != 0),
    "the bound of a clip is passed": ("passes", lambda _: lambda a, gradient, stopped: (gradient != 0) & (a > 0)),
    "a wrong axis": ("neurons_last", lambda _: lambda values: np.moveaxis(values, 1, -1).reshape(-1, values.shape[1])),
    "a ReLU counted twice": ("counts", _counted_twice),
    "an operation of a scratch graph": ("counts", _of_a_scratch_graph),
}


@pytest.mark.once
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_count_is_found(mistake, monkeypatch):
    name = "identity block" if mistake == "a wrong axis" else "made inside"
    attribute, wrong = MISTAKES[mistake]
    trained(name)
    monkeypatch.setattr(function_oracle, attribute, wrong(getattr(function_oracle, attribute)))
    with pytest.raises(AssertionError):
        trained(name)
