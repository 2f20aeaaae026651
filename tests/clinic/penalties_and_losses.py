"""Sick trainings: what holds neurons down or at a ceiling, losses that do not reach them, and NaN."""

import numpy as np
import tensorflow as tf
from networks import LN_10, classifier, digits, mlp, normal, regression, uniform, usual, usual_classifier
from trainings import Training, sick

K, L = tf.keras, tf.keras.layers


def two_targets(seed):
    x, y = normal(seed)
    return x, np.concatenate([y, y], axis=1)


# --- what holds neurons down or at a ceiling --------------------------------------------------------------------------


@sick(
    "hidden",
    "regularizer",
    forbidden="inputs narrow bias_start dead_output",
    reference=usual(normal, 16, epochs=30),
    factor=1e-6,
)
def a_strong_penalty_on_activity(seed, factor=1.0):
    x, y = normal(seed)
    hidden = L.Dense(16, "relu", name="hidden", activity_regularizer=K.regularizers.L1(factor))
    return regression(mlp(8, hidden, L.Dense(1)), x, y, epochs=30)


@sick(
    "hidden",
    "regularizer",
    forbidden="inputs narrow bias_start dead_output",
    reference=usual(normal, 16, epochs=30),
    factor=1e-6,
)
def a_layer_that_penalises_activity(seed, factor=1.0):
    x, y = normal(seed)
    layers = [L.Dense(16, "relu", name="hidden"), L.ActivityRegularization(l1=factor)]
    return regression(mlp(8, *layers, L.Dense(1)), x, y, epochs=30)


@sick(
    "act",
    "batchnorm_lag",
    forbidden="bias_start narrow dead_output",
    reference=usual(normal, 16),
    momentum=0.5,
)
def moving_averages_that_lag(seed, momentum=0.9999):
    x, y = normal(seed)
    layers = [L.Dense(16), L.BatchNormalization(momentum=momentum), L.ReLU(name="act"), L.Dense(1)]
    return regression(mlp(8, *layers), x + 30, y, epochs=20)


@sick(
    "act",
    "saturated",
    forbidden="bias_start inputs narrow",
    reference=usual_classifier(16, samples=300, epochs=40),
    scale=0.04,
    sick_below=0.25,
)
def a_ceiling_that_everything_reaches(seed, scale=1.0):
    x, y = digits(samples=300)
    hidden = [L.Dense(16, kernel_initializer=uniform(0.5 * scale, 1.5 * scale, seed)), L.ReLU(6.0, name="act")]
    return Training(classifier(*hidden, rate=0.003), x, y, epochs=40, chance=LN_10)


# --- the loss ---------------------------------------------------------------------------------------------------------


class Pass(L.Layer):
    """Passes its input on, and its gradient only if `gradient` is set."""

    def __init__(self, gradient):
        super().__init__()
        self.gradient = gradient

    def call(self, x):
        return x if self.gradient else tf.stop_gradient(x)


@sick(
    "encoder",
    "no_path",
    forbidden="bias_start inputs narrow outgoing",
    reference=usual(normal, 4, epochs=40),
    gradient=True,
)
def an_encoder_behind_stop_gradient(seed, gradient=False):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(4, "relu", name="encoder"), Pass(gradient), L.Dense(1)), x, y, epochs=40)


def two_outputs(x, y, losses, weights=None):
    """A model of two outputs with a ReLU layer each, `side` and `main`, and the sum of both losses."""
    given = K.Input((8,))
    side, main = (L.Dense(16, "relu", name=name)(given) for name in ("side", "main"))
    model = K.Model(given, {"p": L.Dense(1, name="p")(side), "q": L.Dense(1, name="q")(main)})
    model.compile(K.optimizers.Adam(0.01), losses, loss_weights=weights)

    def mean_loss(trained):
        return float(np.mean([np.mean((np.asarray(p) - y) ** 2) for p in trained(x).values()]))

    return Training(model, x, {"p": y, "q": y}, chance=float(y.var()), loss=mean_loss)


@sick(
    "side",
    "no_path",
    forbidden="bias_start inputs narrow outgoing",
    reference=usual(two_targets, 32),
    loss="mse",
)
def an_output_without_a_loss(seed, loss=None):
    return two_outputs(*normal(seed), {"p": loss, "q": "mse"})


@sick(
    "side",
    "loss",
    forbidden="bias_start inputs narrow outgoing no_path",
    reference=usual(two_targets, 32),
    weight=1.0,
)
def an_output_whose_loss_weighs_nothing(seed, weight=0.0):
    return two_outputs(*normal(seed), {"p": "mse", "q": "mse"}, {"p": weight, "q": 1.0})


# --- NaN --------------------------------------------------------------------------------------------------------------


@sick(
    "",
    "nan_data",
    forbidden="bias_start inputs narrow general",
    reference=usual(normal, 16),
    broken=False,
)
def nan_in_the_labels(seed, broken=True):
    x, y = normal(seed)
    labels = y.copy()
    labels[7] = np.nan if broken else y[7]
    training = regression(mlp(8, L.Dense(16, "relu", name="hidden"), L.Dense(1)), x, labels)
    training.chance, training.test_y = float(y.var()), y
    return training


class Scale(L.Layer):
    """Divides each column of a batch by its deviation."""

    def __init__(self, epsilon):
        super().__init__()
        self.epsilon = epsilon

    def call(self, x):
        return x / (tf.math.reduce_std(x, axis=0) + self.epsilon)


@sick(
    "",
    "nan_arithmetic",
    forbidden="bias_start inputs narrow nan_data",
    reference=usual(normal, 16),
    epsilon=1e-3,
)
def a_constant_column_over_its_deviation(seed, epsilon=0.0):
    x, y = normal(seed)
    x[:, 7] = 0
    return regression(mlp(8, Scale(epsilon), L.Dense(16, "relu", name="hidden"), L.Dense(1)), x, y)
