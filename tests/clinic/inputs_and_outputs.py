"""Sick trainings: how the inputs lie, and outputs that cannot reach the targets."""

import numpy as np
import tensorflow as tf
from networks import LN_10, classifier, digits, mlp, moved, normal, regression, standardised, uniform, usual
from networks import usual_classifier as classifies
from trainings import Training, sick

K, L = tf.keras, tf.keras.layers


def between_0_and_1(seed):
    x, y = normal(seed)
    return 1 / (1 + np.exp(-x)), y


def below_minus_1(seed):
    x, _ = normal(seed)
    return -np.abs(x) - 1, np.abs(x[:, :1]) + 0.5 * np.abs(x[:, 1:2])


def around_200(seed):
    x, y = normal(seed)
    return 200 + 10 * x, y


def seconds_since_1970(seed):
    """One column is the time of the event, in seconds: a billion and a half."""
    x, y = normal(seed)
    x[:, 7] = 1.5e9 + 1e7 * x[:, 7]
    return x, y


# --- inputs -----------------------------------------------------------------------------------------------------------


@sick(
    "hidden",
    "inputs cut",
    forbidden="bias_start narrow dead_output",
    reference=usual(between_0_and_1, 32),
    standard=True,
)
def kernels_of_one_sign_on_positive_inputs(seed, standard=False):
    x, y = between_0_and_1(seed)
    hidden = L.Dense(32, "relu", name="hidden", kernel_initializer=uniform(-0.5, -0.05, seed))
    return regression(mlp(8, hidden, L.Dense(1)), standardised(x) if standard else x, y)


@sick(
    "hidden", "inputs cut", forbidden="bias_start narrow dead_output", reference=usual(below_minus_1, 32), standard=True
)
def inputs_all_negative(seed, standard=False):
    x, y = below_minus_1(seed)
    hidden = L.Dense(32, "relu", name="hidden", kernel_initializer=uniform(0.05, 0.5, seed))
    return regression(mlp(8, hidden, L.Dense(1)), standardised(x) if standard else x, y)


@sick("hidden", "inputs", forbidden="bias_start narrow dead_output", reference=usual(around_200, 32), standard=True)
def raw_columns_of_mean_200(seed, standard=False):
    x, y = around_200(seed)
    return regression(mlp(8, L.Dense(32, "relu", name="hidden"), L.Dense(1)), standardised(x) if standard else x, y)


@sick(
    "hidden",
    "inputs",
    forbidden="bias_start narrow dead_output",
    reference=usual(seconds_since_1970, 32),
    standard=True,
)
def a_column_of_timestamps(seed, standard=False):
    x, y = seconds_since_1970(seed)
    x = standardised(x.astype("float64")).astype("float32") if standard else x
    return regression(mlp(8, L.Dense(32, "relu", name="hidden"), L.Dense(1)), x, y)


@sick(
    "conv",
    "inputs",
    forbidden="bias_start narrow dead_output",
    reference=classifies(filters=8, samples=300, epochs=10),
    standard=True,
)
def convolutions_on_raw_pixels(seed, standard=False):
    x, y = digits(samples=300)
    layers = [L.Conv2D(8, 3, activation="relu", name="conv"), L.Flatten()]
    model = classifier(*layers, inputs=(8, 8, 1), optimizer=K.optimizers.SGD(0.03, momentum=0.9))
    x = standardised(x) if standard else x * 255
    return Training(model, x.reshape(-1, 8, 8, 1), y, epochs=10, chance=LN_10)


@sick("hidden", "zero_input cut", forbidden="bias_start inputs narrow", reference=usual(normal, 16), broken=False)
def a_loader_that_returns_zeros(seed, broken=True):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(16, "relu", name="hidden"), L.Dense(1)), x * (not broken), y)


# --- outputs ----------------------------------------------------------------------------------------------------------

negative = moved(normal, 1, -5)


def costs(seed):
    """States, and the returns of three actions of an agent whose every step costs: all are negative."""
    x, y = normal(seed, features=4)
    return x, (-10 + np.concatenate([y, -y, 0.5 * y], axis=1)).astype("float32")


@sick(
    "out",
    "dead_output cut",
    forbidden="narrow inputs bias_start",
    reference=usual(negative, 32, epochs=60),
    output=None,
)
def relu_output_on_negative_targets(seed, output="relu"):
    x, y = negative(seed)
    return regression(mlp(8, L.Dense(32, "relu", name="hidden"), L.Dense(1, output, name="out")), x, y, epochs=60)


@sick(
    "out",
    "dead_output cut",
    forbidden="narrow inputs bias_start",
    reference=usual(negative, 32, epochs=60),
    output=None,
)
def relu_output_on_batches_of_a_generator(seed, output="relu"):
    training = relu_output_on_negative_targets(seed, output)

    def batches():
        for start in range(0, 256, 32):
            yield training.x[start : start + 32], training.y[start : start + 32]

    shapes = (tf.TensorSpec((None, 8)), tf.TensorSpec((None, 1)))
    training.batches = tf.data.Dataset.from_generator(batches, output_signature=shapes)
    return training


@sick(
    "out",
    "dead_output cut",
    forbidden="narrow inputs bias_start",
    reference=usual(costs, 24, 24, epochs=60),
    output=None,
)
def q_values_behind_a_relu(seed, output="relu"):
    x, returns = costs(seed)
    hidden = [L.Dense(24, "tanh"), L.Dense(24, "relu", name="hidden")]
    return regression(mlp(4, *hidden, L.Dense(3, output, name="out")), x, returns, epochs=60)


@sick(
    "out",
    "dead_output cut",
    forbidden="narrow inputs",
    reference=usual(moved(normal, 1, -3), 16, 16, 16, activation="sigmoid", epochs=250),
    output=None,
)
def three_sigmoids_and_a_relu_output(seed, output="relu"):
    x, y = normal(seed)
    hidden = [L.Dense(16, "sigmoid") for _ in range(3)]
    model = mlp(8, *hidden, L.Dense(1, output, name="out"))
    return regression(model, x, y - 3, epochs=250, has_relu=output is not None)
