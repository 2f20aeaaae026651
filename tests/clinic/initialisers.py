"""Sick trainings: weights, thresholds and widths that leave neurons dead from the start."""

import numpy as np
import tensorflow as tf
from networks import constant, mlp, normal, regression, uniform, usual
from trainings import sick

K, L = tf.keras, tf.keras.layers


def towers(x):
    return [x[:, :4], x[:, 4:]]


def positive(seed):
    x = np.abs(normal(seed)[0])
    return x, np.tanh(x[:, :1]) + 0.5 * x[:, 1:2] * x[:, 2:3]


def differences(seed):
    x, _ = normal(seed)
    return x, np.tanh(x[:, :1] - x[:, 4:5])


def mixtures(seed):
    """24 columns that are mixed from four; the targets are the inputs."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(300, 4)) @ rng.normal(size=(4, 24))).astype("float32")
    return x, x


@sick(
    "hidden",
    "zero_kernel cut",
    forbidden="inputs narrow bias_start",
    reference=usual(normal, 16),
    kernel="glorot_uniform",
)
def zero_kernels(seed, kernel="zeros"):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(16, "relu", name="hidden", kernel_initializer=kernel), L.Dense(1)), x, y)


@sick(
    "hidden",
    "outgoing",
    forbidden="inputs narrow bias_start no_path",
    reference=usual(normal, 16),
    kernel="glorot_uniform",
)
def a_frozen_head_of_zeros(seed, kernel="zeros"):
    x, y = normal(seed)
    head = L.Dense(4, kernel_initializer=kernel, trainable=False)
    return regression(mlp(8, L.Dense(16, "relu", name="hidden"), head, L.Dense(1)), x, y, epochs=40)


@sick(
    "left",
    "bias_start cut",
    forbidden="inputs narrow learning_rate",
    reference=usual(normal, 32),
    bias=0.0,
)
def a_very_negative_bias_in_one_of_two_towers(seed, bias=-50.0):
    x, y = normal(seed)
    a, b = K.Input((4,)), K.Input((4,))
    left = L.Dense(16, "relu", name="left", bias_initializer=constant(bias))(a)
    right = L.Dense(16, "relu", name="right")(b)
    model = K.Model([a, b], L.Dense(1)(L.Concatenate()([left, right])))
    model.compile(K.optimizers.Adam(0.01), "mse")
    return regression(model, towers(x), y)


@sick(
    "first",
    "bias_start second_cause cut",
    forbidden="inputs narrow learning_rate",
    reference=usual(normal, 16, 16),
    upper=0.0,
    lower=0.0,
)
def a_second_negative_bias_behind_the_first(seed, upper=-99.0, lower=-5.0):
    x, y = normal(seed)
    first = L.Dense(16, "relu", name="first", bias_initializer=constant(upper))
    second = L.Dense(16, "relu", name="second", bias_initializer=constant(lower))
    return regression(mlp(8, first, second, L.Dense(1)), x, y)


@sick(
    "second",
    "bias_start cut",
    forbidden="inputs narrow learning_rate",
    reference=usual(normal, 16, 16),
    bias=0.0,
)
def a_dead_layer_behind_a_living_one(seed, bias=-99.0):
    x, y = normal(seed)
    second = L.Dense(16, "relu", name="second", bias_initializer=constant(bias))
    return regression(mlp(8, L.Dense(16, "relu", name="first"), second, L.Dense(1)), x, y)


@sick(
    "hidden*",
    "narrow",
    forbidden="inputs dead_output learning_rate",
    reference=usual(positive, 64, epochs=30),
    width=64,
    depth=3,
    sick_below=0.15,
)
def deep_and_two_wide(seed, width=2, depth=12):
    x, y = positive(seed)
    hidden = [L.Dense(width, "relu", name=f"hidden{i}", kernel_initializer="he_normal") for i in range(depth)]
    model = mlp(8, L.Dense(8, use_bias=False), *hidden, L.Dense(1), optimizer=K.optimizers.Adam(0.001))
    return regression(model, x, y, epochs=30, at_start=True)


@sick(
    "act",
    "bias_start cut",
    forbidden="inputs narrow learning_rate",
    reference=usual(normal, 16, epochs=30),
    beta=0.0,
)
def a_beta_below_zero(seed, beta=-20.0):
    x, y = normal(seed)
    norm = L.BatchNormalization(beta_initializer=constant(beta), momentum=0.8)
    return regression(mlp(8, L.Dense(16), norm, L.ReLU(name="act"), L.Dense(1)), x, y, epochs=30)


@sick(
    "encoder",
    "bias_start cut",
    forbidden="inputs narrow learning_rate",
    reference=usual(differences, 32, epochs=30),
    bias=0.0,
)
def siamese_towers(seed, bias=-30.0):
    x, y = differences(seed)
    a, b = K.Input((4,)), K.Input((4,))
    encoder = L.Dense(16, "relu", name="encoder", bias_initializer=constant(bias))
    model = K.Model([a, b], L.Dense(1)(L.Concatenate()([encoder(a), encoder(b)])))
    model.compile(K.optimizers.Adam(0.01), "mse")
    return regression(model, towers(x), y, epochs=30)


@sick(
    "code",
    "bias_start cut",
    forbidden="inputs narrow learning_rate",
    reference=usual(mixtures, 32, 16, 32, epochs=30),
    bias=0.1,
)
def the_bottleneck_of_an_autoencoder(seed, bias=-20.0):
    x, y = mixtures(seed)
    code = L.Dense(16, "relu", name="code", bias_initializer=constant(bias))
    layers = [L.Dense(32, "relu", name="encoder"), code, L.Dense(32, "relu", name="decoder"), L.Dense(24)]
    return regression(mlp(24, *layers, optimizer=K.optimizers.Adam(0.003)), x, y, epochs=30)


@sick(
    "hidden",
    "bias_start cut",
    forbidden="inputs narrow learning_rate",
    reference=usual(normal, 16),
    bias=0.0,
)
def mixed_precision(seed, bias=-30.0):
    x, y = normal(seed)
    hidden = L.Dense(16, "relu", name="hidden", dtype="mixed_float16", bias_initializer=constant(bias))
    return regression(mlp(8, hidden, L.Dense(1, dtype="float32")), x, y)


@sick(
    "act",
    "threshold cut",
    forbidden="bias_start inputs narrow",
    reference=usual(normal, 16),
    threshold=0.0,
)
def a_threshold_that_nothing_reaches(seed, threshold=50.0):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(16), L.ReLU(threshold=threshold, name="act"), L.Dense(1)), x, y)


@sick(
    "hidden",
    "inputs cut",
    forbidden="bias_start narrow learning_rate trained_down general",
    reference=usual(normal, 16),
    centred=True,
)
def kernels_below_zero_behind_positive_features(seed, centred=False):
    x, y = normal(seed)
    features = [L.Dense(16, "softplus"), *([L.BatchNormalization(momentum=0.8)] if centred else [])]
    hidden = L.Dense(16, "relu", name="hidden", kernel_initializer=uniform(-0.5, -0.1, seed))
    return regression(mlp(8, *features, hidden, L.Dense(1)), x, y)


@sick(
    "unrolled*",
    "general",  # the activation of a cell is seen, and not what leads to it
    forbidden="inputs narrow learning_rate",
    reference=usual(normal, 16, epochs=30),
    bias=0.0,
)
def an_unrolled_recurrent_layer(seed, bias=-30.0):
    """The eight columns as four steps of two."""
    x, y = normal(seed)
    cell = L.SimpleRNN(16, "relu", unroll=True, bias_initializer=constant(bias), name="unrolled")
    return regression(mlp(8, L.Reshape((4, 2)), cell, L.Dense(1)), x, y, epochs=30)
