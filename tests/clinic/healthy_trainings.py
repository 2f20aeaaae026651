"""Healthy trainings: none of them may get advice."""

import numpy as np
import tensorflow as tf
from networks import classifier, digits, mlp, normal, regression, standardised
from trainings import Training, healthy

K, L = tf.keras, tf.keras.layers


@healthy
def digits_with_adam(seed):
    x, y = digits()
    return Training(classifier(L.Dense(24, "relu"), rate=0.001), standardised(x), y, epochs=5)


@healthy
def standardised_regression(seed):
    x, y = normal(seed)
    return regression(
        mlp(8, L.Dense(16, "relu"), L.Dense(16, "tanh"), L.Dense(1), optimizer=K.optimizers.SGD(0.02)), x, y
    )


@healthy
def a_dead_data_column(seed):
    x, y = normal(seed)
    x[:, 3] = 0
    return regression(mlp(8, L.Dense(16, "relu"), L.Dense(1)), x, y)


@healthy
def small_convolutions(seed):
    x, y = digits(samples=300)
    layers = [L.Conv2D(8, 3, activation="relu"), L.Conv2D(8, 3, activation="relu"), L.GlobalAveragePooling2D()]
    return Training(classifier(*layers, inputs=(8, 8, 1), rate=0.001), x.reshape(-1, 8, 8, 1) - 0.3, y, epochs=3)


@healthy
def batch_normalization(seed):
    x, y = normal(seed)
    layers = [L.Dense(16), L.BatchNormalization(momentum=0.8), L.ReLU(), L.Dense(1)]
    return regression(mlp(8, *layers), x, y)


@healthy
def two_towers(seed):
    x, y = normal(seed)
    a, b = K.Input((4,)), K.Input((4,))
    towers = [L.Dense(12, "relu")(each) for each in (a, b)]
    model = K.Model([a, b], L.Dense(1)(L.Concatenate()(towers)))
    model.compile(K.optimizers.Adam(0.005), "mse")
    return regression(model, [x[:, :4], x[:, 4:]], y)


@healthy
def dropout(seed):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(16, "relu"), L.Dropout(0.2), L.Dense(16, "relu"), L.Dense(1)), x, y, epochs=10)


@healthy
def softplus_output_on_positive_targets(seed):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(16, "relu"), L.Dense(1, "softplus")), x, np.exp(y))


@healthy
def half_precision(seed):
    x, y = normal(seed)
    hidden = L.Dense(16, "relu", dtype="mixed_float16")
    return regression(mlp(8, hidden, L.Dense(1, dtype="float32")), x, y)


@healthy
def a_residual_block(seed):
    x, y = normal(seed)
    given = K.Input((8,))
    wide = L.Dense(16, "relu")(given)
    block = L.Add()([wide, L.Dense(16)(L.Dense(16, "relu")(wide))])
    model = K.Model(given, L.Dense(1)(L.ReLU()(block)))
    model.compile(K.optimizers.Adam(0.005), "mse")
    return regression(model, x, y)


@healthy
def a_small_penalty_on_activity(seed):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(16, "relu", activity_regularizer=K.regularizers.L1(1e-5)), L.Dense(1)), x, y)


@healthy
def an_unrolled_recurrent_layer_that_learns(seed):
    x, y = normal(seed)
    layers = [L.Reshape((4, 2)), L.SimpleRNN(16, "relu", unroll=True), L.Dense(1)]
    return regression(mlp(8, *layers, optimizer=K.optimizers.Adam(0.003)), x, y)
