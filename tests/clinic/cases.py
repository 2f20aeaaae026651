"""The cases of the clinic: trainings that go wrong in ways that people met, each with own code on own data."""

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from trainings import Training, healthy, sick

K, L = tf.keras, tf.keras.layers


def constant(value):
    return K.initializers.Constant(value)


def normal(seed, samples=256, features=8):
    """`(x, y)`: standard normal inputs, and a smooth function of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, features)).astype("float32")
    return x, (np.tanh(x[:, :1]) + 0.5 * x[:, 1:2] * x[:, 2:3]).astype("float32")


def digits(samples=500):
    """`(x, y)`: scikit-learn's digits, pixels from 0 to 1, and their classes."""
    found = load_digits()
    return (found.data[:samples] / 16).astype("float32"), found.target[:samples]


def standardised(x):
    return (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)


def mlp(features, *layers, optimizer=None, loss="mse"):
    model = K.Sequential([K.Input((features,)), *layers])
    model.compile(K.optimizers.Adam(0.01) if optimizer is None else optimizer, loss)
    return model


def regression(model, x, y, **options):
    return Training(model, x, y, chance=float(np.mean(y.var(axis=0))), **options)


# --- how the inputs lie -----------------------------------------------------------------------------------------------


@sick("hidden", "inputs cut", forbidden="bias_start narrow dead_output", standard=True)
def kernels_of_one_sign_on_positive_inputs(seed, standard=False):
    x, y = normal(seed)
    x = standardised(x) if standard else 1 / (1 + np.exp(-x))
    kernel = K.initializers.RandomUniform(-0.5, -0.05, seed=seed)
    return regression(mlp(8, L.Dense(32, "relu", name="hidden", kernel_initializer=kernel), L.Dense(1)), x, y)


@sick("hidden", "inputs cut", forbidden="bias_start narrow dead_output", standard=True)
def inputs_all_negative(seed, standard=False):
    x, y = normal(seed)
    x = standardised(x) if standard else -np.abs(x) - 1
    if standard:
        x = standardised(-np.abs(normal(seed)[0]) - 1)
    kernel = K.initializers.RandomUniform(0.05, 0.5, seed=seed)
    y = np.abs(normal(seed)[0][:, :1]) + 0.5 * np.abs(normal(seed)[0][:, 1:2])
    return regression(mlp(8, L.Dense(32, "relu", name="hidden", kernel_initializer=kernel), L.Dense(1)), x, y)


@sick("hidden", "inputs", forbidden="bias_start narrow dead_output", standard=True)
def raw_columns_of_mean_200(seed, standard=False):
    x, y = normal(seed)
    x = x if standard else 200 + 10 * x
    return regression(mlp(8, L.Dense(32, "relu", name="hidden"), L.Dense(1)), x, y)


@sick("conv", "learning_rate", forbidden="bias_start narrow dead_output", rate=1e-4)
def convolutions_on_raw_pixels(seed, rate=0.03):
    x, y = digits(300)
    x = (x * 255).reshape(-1, 8, 8, 1)
    layers = [L.Conv2D(8, 3, activation="relu", name="conv"), L.Flatten(), L.Dense(10, "softmax")]
    model = K.Sequential([K.Input((8, 8, 1)), *layers])
    model.compile(K.optimizers.SGD(rate, momentum=0.9), "sparse_categorical_crossentropy")
    return Training(model, x, y, epochs=10, chance=float(np.log(10)))


@sick("hidden", "zero_input cut", forbidden="bias_start inputs narrow", broken=False)
def a_loader_that_returns_zeros(seed, broken=True):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(16, "relu", name="hidden"), L.Dense(1)), x * (not broken), y)


# --- the output -------------------------------------------------------------------------------------------------------


@sick("out", "dead_output cut", forbidden="narrow inputs bias_start", output=None)
def relu_output_on_negative_targets(seed, output="relu"):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(32, "relu", name="hidden"), L.Dense(1, output, name="out")), x, y - 5)


@sick("out", "dead_output cut", forbidden="narrow inputs bias_start", output=None)
def q_values_behind_a_relu(seed, output="relu"):
    """An agent whose every step costs: all returns are negative."""
    x, y = normal(seed, features=4)
    returns = -10 + np.concatenate([y, -y, 0.5 * y], axis=1)
    hidden = [L.Dense(24, "tanh"), L.Dense(24, "relu", name="hidden")]
    return regression(mlp(4, *hidden, L.Dense(3, output, name="out")), x, returns.astype("float32"))


@sick("out", "dead_output cut", forbidden="narrow inputs", output=None)
def three_sigmoids_and_a_relu_output(seed, output="relu"):
    x, y = normal(seed)
    hidden = [L.Dense(16, "sigmoid") for _ in range(3)]
    model = mlp(8, *hidden, L.Dense(1, output, name="out"))
    return regression(model, x, y - 3, epochs=60, has_relu=output is not None)


# --- the learning rate ------------------------------------------------------------------------------------------------


@sick("", "learning_rate", forbidden="dead_output narrow bias_start", rate=0.001, sick_below=0.15)
def adam_at_a_tenth(seed, rate=0.1):
    x, y = digits()
    layers = [L.Dense(width, "relu") for width in (128, 64, 32)]
    model = mlp(
        64, *layers, L.Dense(10, "softmax"), optimizer=K.optimizers.Adam(rate), loss="sparse_categorical_crossentropy"
    )
    return Training(model, x, y, epochs=10, chance=float(np.log(10)))


@sick("", "learning_rate", forbidden="dead_output narrow bias_start", rate=1e-4)
def momentum_on_unscaled_targets(seed, rate=0.003):
    x, y = normal(seed)
    optimizer = K.optimizers.SGD(rate, momentum=0.9)
    return regression(
        mlp(8, L.Dense(32, "relu", name="hidden"), L.Dense(1), optimizer=optimizer), x, 100 * y + 300, epochs=60
    )


class OneStep(K.callbacks.Callback):
    """Another learning rate at one step of the fit."""

    def __init__(self, step, rate, usual):
        super().__init__()
        self.rates, self.usual, self.done = {step: rate}, usual, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate.assign(self.rates.get(self.done, self.usual))
        self.done += 1


@sick("hidden", "learning_rate", forbidden="dead_output narrow bias_start inputs", rate=0.02)
def a_rate_too_high_at_one_step(seed, rate=100.0):
    x = np.random.default_rng(seed).random((80, 4), np.float32)
    hidden = L.Dense(16, "relu", name="hidden", kernel_initializer=K.initializers.RandomUniform(0.1, 0.5, seed=seed))
    step = OneStep(33, rate, 0.02)
    model = mlp(4, hidden, L.Dense(1), optimizer=K.optimizers.SGD(0.02))
    return regression(model, x, x.sum(axis=1, keepdims=True), epochs=20, batch_size=8, callbacks=(step,))


class OwnStep(K.Model):
    """A model with a training step of its own, which returns its loss under another name."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = L.Dense(32, "relu", name="hidden"), L.Dense(1)

    def call(self, x):
        return self.out(self.hidden(x))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"error": loss}


@sick("", "learning_rate", forbidden="dead_output narrow bias_start", rate=0.01)
def a_train_step_of_its_own(seed, rate=0.4):
    x, y = normal(seed)
    model = OwnStep()
    model(x[:1])
    model.compile(K.optimizers.SGD(rate), "mse")
    return regression(model, x, y + 5, epochs=30)


# --- initialisers -----------------------------------------------------------------------------------------------------


@sick("hidden", "zero_kernel cut", forbidden="inputs narrow bias_start", kernel="glorot_uniform")
def zero_kernels(seed, kernel="zeros"):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(16, "relu", name="hidden", kernel_initializer=kernel), L.Dense(1)), x, y)


@sick("left", "bias_start cut", forbidden="inputs narrow learning_rate", bias=0.0)
def a_very_negative_bias_in_one_of_two_towers(seed, bias=-50.0):
    x, y = normal(seed)
    a, b = K.Input((4,)), K.Input((4,))
    left = L.Dense(16, "relu", name="left", bias_initializer=constant(bias))(a)
    right = L.Dense(16, "relu", name="right")(b)
    model = K.Model([a, b], L.Dense(1)(L.Concatenate()([left, right])))
    model.compile(K.optimizers.Adam(0.01), "mse")
    return regression(model, [x[:, :4], x[:, 4:]], y)


@sick("first", "bias_start second_cause cut", forbidden="inputs narrow learning_rate", upper=0.0, lower=0.0)
def a_second_negative_bias_behind_the_first(seed, upper=-99.0, lower=-5.0):
    x, y = normal(seed)
    first = L.Dense(16, "relu", name="first", bias_initializer=constant(upper))
    return regression(
        mlp(8, first, L.Dense(16, "relu", name="second", bias_initializer=constant(lower)), L.Dense(1)), x, y
    )


@sick("second", "bias_start cut", forbidden="inputs narrow learning_rate", bias=0.0)
def a_dead_layer_behind_a_living_one(seed, bias=-99.0):
    x, y = normal(seed)
    second = L.Dense(16, "relu", name="second", bias_initializer=constant(bias))
    return regression(mlp(8, L.Dense(16, "relu", name="first"), second, L.Dense(1)), x, y)


@sick("hidden*", "narrow", forbidden="inputs dead_output learning_rate", width=64, sick_below=0.15)
def deep_and_two_wide(seed, width=2):
    x, y = normal(seed)
    x = np.abs(x)
    hidden = [L.Dense(width, "relu", name=f"hidden{i}", kernel_initializer="he_normal") for i in range(24)]
    optimizer = K.optimizers.Adam(0.001)
    return regression(
        mlp(8, L.Dense(8, use_bias=False), *hidden, L.Dense(1), optimizer=optimizer), x, y, epochs=40, at_start=True
    )


@sick("act", "bias_start cut", forbidden="inputs narrow learning_rate", beta=0.0)
def a_beta_below_zero(seed, beta=-20.0):
    x, y = normal(seed)
    norm = L.BatchNormalization(beta_initializer=constant(beta), momentum=0.8)
    return regression(mlp(8, L.Dense(16), norm, L.ReLU(name="act"), L.Dense(1)), x, y, epochs=30)


@sick("encoder", "bias_start cut", forbidden="inputs narrow learning_rate", bias=0.0)
def siamese_towers(seed, bias=-30.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(256, 8)).astype("float32")
    y = np.tanh(x[:, :1] - x[:, 4:5]).astype("float32")
    a, b = K.Input((4,)), K.Input((4,))
    encoder = L.Dense(16, "relu", name="encoder", bias_initializer=constant(bias))
    model = K.Model([a, b], L.Dense(1)(L.Concatenate()([encoder(a), encoder(b)])))
    model.compile(K.optimizers.Adam(0.01), "mse")
    return regression(model, [x[:, :4], x[:, 4:]], y, epochs=30)


@sick("code", "bias_start cut", forbidden="inputs narrow learning_rate", bias=0.1)
def the_bottleneck_of_an_autoencoder(seed, bias=-20.0):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(300, 4)) @ rng.normal(size=(4, 24))).astype("float32")
    code = L.Dense(16, "relu", name="code", bias_initializer=constant(bias))
    layers = [L.Dense(32, "relu", name="encoder"), code, L.Dense(32, "relu", name="decoder"), L.Dense(24)]
    return regression(mlp(24, *layers, optimizer=K.optimizers.Adam(0.003)), x, x, epochs=30)


@sick("hidden", "bias_start cut", forbidden="inputs narrow learning_rate", bias=0.0)
def mixed_precision(seed, bias=-30.0):
    x, y = normal(seed)
    hidden = L.Dense(16, "relu", name="hidden", dtype="mixed_float16", bias_initializer=constant(bias))
    return regression(mlp(8, hidden, L.Dense(1, dtype="float32")), x, y)


@sick("act", "threshold cut", forbidden="bias_start inputs narrow", threshold=0.0)
def a_threshold_that_nothing_reaches(seed, threshold=50.0):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(16), L.ReLU(threshold=threshold, name="act"), L.Dense(1)), x, y)


# --- what pulls or holds neurons down ---------------------------------------------------------------------------------


@sick("hidden", "regularizer", forbidden="inputs narrow bias_start dead_output", factor=1e-6)
def a_strong_penalty_on_activity(seed, factor=1.0):
    x, y = normal(seed)
    hidden = L.Dense(16, "relu", name="hidden", activity_regularizer=K.regularizers.L1(factor))
    training = regression(mlp(8, hidden, L.Dense(1)), x, y, epochs=30)
    return training


@sick("act", "batchnorm_lag", forbidden="bias_start narrow dead_output", momentum=0.5)
def moving_averages_that_lag(seed, momentum=0.9999):
    x, y = normal(seed)
    layers = [L.Dense(16), L.BatchNormalization(momentum=momentum), L.ReLU(name="act"), L.Dense(1)]
    return regression(mlp(8, *layers), x + 30, y, epochs=20)


@sick("act", "saturated", forbidden="bias_start inputs narrow", ceiling=None, sick_below=0.25)
def a_ceiling_that_everything_reaches(seed, ceiling=6.0):
    x, y = digits(300)
    kernel = K.initializers.RandomUniform(0.5, 1.5, seed=seed)
    hidden = [L.Dense(16, kernel_initializer=kernel), L.ReLU(ceiling, name="act")]
    model = mlp(
        64, *hidden, L.Dense(10, "softmax"), optimizer=K.optimizers.Adam(0.003), loss="sparse_categorical_crossentropy"
    )
    return Training(model, x, y, epochs=40, chance=float(np.log(10)))


# --- the loss ---------------------------------------------------------------------------------------------------------


class Pass(L.Layer):
    """Passes its input on, and its gradient only if `gradient` is set."""

    def __init__(self, gradient):
        super().__init__()
        self.gradient = gradient

    def call(self, x):
        return x if self.gradient else tf.stop_gradient(x)


@sick("encoder", "no_path", forbidden="bias_start inputs narrow outgoing", gradient=True)
def an_encoder_behind_stop_gradient(seed, gradient=False):
    x, y = normal(seed)
    return regression(mlp(8, L.Dense(4, "relu", name="encoder"), Pass(gradient), L.Dense(1)), x, y, epochs=40)


@sick("side", "no_path", forbidden="bias_start inputs narrow outgoing", loss="mse")
def an_output_without_a_loss(seed, loss=None):
    x, y = normal(seed)
    given = K.Input((8,))
    side, main = (L.Dense(16, "relu", name=name)(given) for name in ("side", "main"))
    model = K.Model(given, {"p": L.Dense(1, name="p")(side), "q": L.Dense(1, name="q")(main)})
    model.compile(K.optimizers.Adam(0.01), {"p": loss, "q": "mse"})

    def both_losses(trained):
        return sum(float(np.mean((np.asarray(p) - y) ** 2)) for p in trained.predict(x, verbose=0).values())

    return Training(model, x, {"p": y, "q": y}, chance=float(2 * y.var()), loss=both_losses)


@sick("", "nan_data", forbidden="bias_start inputs narrow general", broken=False)
def nan_in_the_labels(seed, broken=True):
    x, y = normal(seed)
    labels = y.copy()
    labels[7] = np.nan if broken else y[7]
    training = regression(mlp(8, L.Dense(16, "relu", name="hidden"), L.Dense(1)), x, labels)
    training.chance, training.test_y = float(y.var()), y
    return training


# --- healthy ----------------------------------------------------------------------------------------------------------


@healthy
def digits_with_adam(seed):
    x, y = digits()
    model = mlp(
        64,
        L.Dense(24, "relu"),
        L.Dense(10, "softmax"),
        optimizer=K.optimizers.Adam(0.001),
        loss="sparse_categorical_crossentropy",
    )
    return Training(model, standardised(x), y, epochs=5)


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
    x, y = digits(300)
    layers = [L.Conv2D(8, 3, activation="relu"), L.Conv2D(8, 3, activation="relu"), L.GlobalAveragePooling2D()]
    model = K.Sequential([K.Input((8, 8, 1)), *layers, L.Dense(10, "softmax")])
    model.compile(K.optimizers.Adam(0.001), "sparse_categorical_crossentropy")
    return Training(model, x.reshape(-1, 8, 8, 1) - 0.3, y, epochs=3)


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
