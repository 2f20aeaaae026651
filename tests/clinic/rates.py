"""Sick trainings: learning rates that are too high, in one way or another."""

import numpy as np
import tensorflow as tf
from networks import LN_10, classifier, digits, mlp, moved, normal, regression, uniform, usual, usual_classifier
from trainings import Training, sick

K, L = tf.keras, tf.keras.layers
unscaled = moved(normal, 100, 300)
above = moved(normal, 1, 5)


def sums(seed):
    x = np.random.default_rng(seed).random((80, 4), np.float32)
    return x, x.sum(axis=1, keepdims=True)


@sick(
    "",
    "learning_rate",
    forbidden="dead_output narrow bias_start",
    reference=usual_classifier(128, 64, 32, epochs=10),
    rate=0.001,
    sick_below=0.15,
)
def adam_at_a_tenth(seed, rate=0.1):
    x, y = digits()
    model = classifier(*(L.Dense(width, "relu") for width in (128, 64, 32)), rate=rate)
    return Training(model, x, y, epochs=10, chance=LN_10)


@sick(
    "",
    "targets learning_rate",
    forbidden="dead_output narrow bias_start",
    reference=usual(unscaled, 32, epochs=60),
    standard_targets=True,
)
def momentum_on_unscaled_targets(seed, rate=0.003, standard_targets=False):
    x, y = unscaled(seed)
    model = mlp(8, L.Dense(32, "relu", name="hidden"), L.Dense(1), optimizer=K.optimizers.SGD(rate, momentum=0.9))
    return regression(model, x, y, standard_targets, epochs=60)


@sick(
    "",
    "nan_weights targets learning_rate",
    forbidden="nan_data nan_arithmetic narrow",
    reference=usual(unscaled, 32, epochs=60),
    standard_targets=True,
    rate=0.02,
)
def weights_that_blow_up(seed, rate=2.0, standard_targets=False):
    """Next to the ReLUs is a linear path, which does not die and so blows up."""
    x, y = unscaled(seed)
    given = K.Input((8,))
    hidden = L.Dense(32, "relu")(given)
    model = K.Model(given, L.Dense(1)(L.Concatenate()([given, hidden])))
    model.compile(K.optimizers.SGD(rate, momentum=0.9), "mse")
    return regression(model, x, y, standard_targets, epochs=60)


class OneStep(K.callbacks.Callback):
    """Another learning rate at one step of the fit."""

    def __init__(self, step, rate, usual):
        super().__init__()
        self.rates, self.usual, self.done = {step: rate}, usual, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate.assign(self.rates.get(self.done, self.usual))
        self.done += 1


@sick(
    "hidden",
    "learning_rate",
    forbidden="dead_output narrow bias_start inputs",
    reference=usual(sums, 16, batch_size=8),
    rate=0.02,
)
def a_rate_too_high_at_one_step(seed, rate=300.0):
    x, y = sums(seed)
    hidden = L.Dense(16, "relu", name="hidden", kernel_initializer=uniform(0.1, 0.5, seed))
    model = mlp(4, hidden, L.Dense(1), optimizer=K.optimizers.SGD(0.02))
    return regression(model, x, y, epochs=20, batch_size=8, callbacks=(OneStep(33, rate, 0.02),))


class OwnStep(K.Model):
    """A model with a training step of its own, which returns its loss under another name, or none."""

    def __init__(self, kernel, returns_loss):
        super().__init__()
        self.hidden, self.out = L.Dense(32, "relu", name="hidden", kernel_initializer=kernel), L.Dense(1)
        self.returns_loss = returns_loss

    def call(self, x):
        return self.out(self.hidden(x))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = tf.reduce_mean(tf.square(predicted - y))
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"error": loss} if self.returns_loss else {"output": tf.reduce_mean(predicted)}


def own_step(rate, x, y, kernel="glorot_uniform", returns_loss=True, **options):
    model = OwnStep(kernel, returns_loss)
    model(x[:1])
    model.compile(K.optimizers.SGD(rate), "mse")
    return regression(model, x, y, epochs=30, **options)


@sick(
    "",
    "learning_rate",
    forbidden="dead_output narrow bias_start",
    reference=usual(above, 32, epochs=30),
    rate=0.04,
)
def a_train_step_of_its_own(seed, rate=0.4):
    x, y = above(seed)
    return own_step(rate, x, y)


@sick(
    "hidden",
    "learning_rate",
    forbidden="dead_output narrow bias_start inputs trained_down",
    reference=usual(sums, 32, epochs=30, batch_size=8),
    rate=0.02,
)
def a_train_step_without_a_loss(seed, rate=3000.0):
    """One step at a rate far too high, in a training step that returns no loss: only the weights tell of it."""
    x, y = sums(seed)
    bad_step = OneStep(33, rate, 0.02)
    return own_step(0.02, x, y, uniform(0.1, 0.5, seed), False, batch_size=8, callbacks=(bad_step,))


@sick(
    "",
    "learning_rate|trained_down|general",  # all of them name the rate first
    forbidden="dead_output narrow bias_start inputs",
    reference=usual(normal, 16, epochs=30),
    rate=0.01,
)
def an_unrolled_recurrent_layer_at_a_high_rate(seed, rate=0.2):
    """The eight columns as four steps of two."""
    x, y = normal(seed)
    layers = [L.Reshape((4, 2)), L.SimpleRNN(16, "relu", unroll=True), L.Dense(1)]
    return regression(mlp(8, *layers, optimizer=K.optimizers.Adam(rate)), x, y, epochs=30)
