"""Tests of the axis of the neurons: proved by the model's structure or by the operations of a step, or the layer is named as not counted."""

import numpy as np
import pytest
import tensorflow as tf

from relu_probe import ReluProbe, diagnose, measure
from relu_probe.structure.relu_layers import find_relus

K, L = tf.keras, tf.keras.layers
IMAGES = np.random.default_rng(0).standard_normal((6, 2, 5, 5)).astype("f")  # channels first
SEQUENCES = np.random.default_rng(0).standard_normal((6, 4, 3)).astype("f")
BIAS = K.initializers.Constant([-50.0, 0.1, 0.1, 50.0])  # channel 0 is dead, channel 3 active everywhere


def conv(**more):
    return L.Conv2D(4, 3, padding="same", data_format="channels_first", bias_initializer=BIAS, **more)


class Subclassed(K.Model):
    """Calls layers one after another."""

    def __init__(self, *layers):
        super().__init__()
        self.blocks, self.flat, self.out = list(layers), L.Flatten(), L.Dense(1)

    def call(self, x):
        for layer in self.blocks:
            x = layer(x)
        return self.out(self.flat(x))


class Block(L.Layer):
    """A block of a user's, with a ReLU layer."""

    def __init__(self):
        super().__init__()
        self.scale, self.act = L.Rescaling(2.0), L.ReLU(name="relu")

    def call(self, x):
        return self.act(self.scale(x))


def chain(*layers, shape=(2, 5, 5)):
    return K.Sequential([K.Input(shape), *layers, L.Flatten(), L.Dense(1)])


def relu():
    return L.ReLU(name="relu")


def branches(*of):
    x = K.Input((2, 5, 5))
    added = L.Add()([layer(x) for layer in of])
    return K.Model(x, L.Dense(1)(L.Flatten()(relu()(added))))


def inner(*layers, shape=(4, 5, 5)):
    return K.Sequential([K.Input(shape), *layers])


CHANNELS_FIRST = {
    "Sequential": lambda: chain(conv(), relu()),
    "a nested Sequential": lambda: chain(conv(), inner(L.Rescaling(2.0), relu())),
    "an unbuilt nested Sequential": lambda: chain(conv(), K.Sequential([L.Rescaling(2.0), relu()])),
    "nested twice": lambda: chain(conv(), inner(L.Rescaling(2.0), inner(relu()))),
    "behind a nested model": lambda: chain(inner(conv(), L.Rescaling(2.0), shape=(2, 5, 5)), relu()),
    "SpectralNormalization": lambda: chain(L.SpectralNormalization(conv()), relu()),
    "two branches": lambda: branches(conv(), conv()),
    "subclassed": lambda: Subclassed(conv(), relu()),
    "subclassed, with a layer between": lambda: Subclassed(
        conv(), L.MaxPooling2D(data_format="channels_first"), relu()
    ),
    "a block in a subclassed model": lambda: Subclassed(conv(), Block()),
    "a block in a Sequential": lambda: chain(conv(), Block()),
    "a Sequential in a subclassed model": lambda: Subclassed(conv(), K.Sequential([relu()])),
    "an operation": lambda: Subclassed(
        L.Lambda(
            lambda t: (
                tf.nn.conv2d(t, tf.ones((3, 3, 2, 4)), 1, "SAME", "NCHW")
                + tf.constant([-500.0, 0, 0, 500], shape=(4, 1, 1))
            )
        ),
        relu(),
    ),
}


@pytest.mark.parametrize("name", list(CHANNELS_FIRST))
def test_channels_first_is_followed_to_the_relu(name):
    model, probe = CHANNELS_FIRST[name](), ReluProbe(strict=True)
    model.compile(K.optimizers.SGD(0.0), "mse")
    model.fit(IMAGES, np.ones((6, 1)), batch_size=3, verbose=0, callbacks=[probe])
    for report in (probe.report, measure(model, IMAGES)):
        layer = report["relu"]
        assert layer.neurons == 4
        assert layer.active[0] == 0
        assert layer.active[3] == layer.positions


MOVED = {  # model -> neurons of its ReLU
    "to the last axis": (lambda: chain(conv(), L.Permute((2, 3, 1)), relu()), 4),
    "from the last axis": (
        lambda: chain(L.Conv2D(4, 1, data_format="channels_last", bias_initializer=BIAS), L.Permute((3, 1, 2)), relu()),
        4,
    ),
    "to the middle": (
        lambda: chain(L.Conv2D(4, 1, data_format="channels_last", bias_initializer=BIAS), L.Permute((1, 3, 2)), relu()),
        4,
    ),
    "by an operation": (
        lambda: Subclassed(conv(), L.Lambda(lambda t: tf.transpose(t, (0, 2, 3, 1))), relu()),
        4,
    ),
}


@pytest.mark.parametrize("name", list(MOVED))
def test_the_channels_are_followed_where_axes_are_moved(name):
    make, neurons = MOVED[name]
    model, probe = make(), ReluProbe(strict=True)
    model.compile(K.optimizers.SGD(0.0), "mse")
    model.fit(IMAGES, np.ones((6, 1)), verbose=0, callbacks=[probe])
    layer = probe.report["relu"]
    assert layer.neurons == neurons
    assert layer.active[0] == 0
    assert layer.active[3] == layer.positions


UNPROVED = {
    "in the middle": lambda: K.Sequential(
        [K.Input((3, 2, 5, 5)), L.TimeDistributed(conv()), relu(), L.Flatten(), L.Dense(1)]
    ),
    "folded": lambda: chain(conv(), L.Reshape((20, 5)), relu(), L.Dense(2, "relu", name="seen")),
}


@pytest.mark.parametrize("name", list(UNPROVED))
def test_an_axis_that_is_not_proved_is_named(name):
    model, probe = UNPROVED[name](), ReluProbe()
    x = np.ones((6, *model.input_shape[1:]), "f")
    model.compile(K.optimizers.SGD(0.0), "mse")
    seen = "seen" in [layer.name for layer in model.layers]
    with pytest.warns(UserWarning, match="none of the model's ReLUs") if not seen else np.errstate():
        model.fit(x, np.ones((6, 1)), verbose=0, callbacks=[probe])
    assert list(probe.report.unseen) == ["relu"]
    assert "show which axis" in probe.report.unseen["relu"]
    assert list(probe.report.layers) == ["seen"] * seen


def test_an_eager_step_proves_no_axis_behind_a_layer_with_channels_first():
    model, probe = Subclassed(conv(), relu(), L.Flatten(), L.Dense(2, "relu", name="seen")), ReluProbe()
    model.compile(K.optimizers.SGD(0.0), "mse", run_eagerly=True)
    model.fit(IMAGES, np.ones((6, 1)), verbose=0, callbacks=[probe])
    assert "show which axis" in probe.report.unseen["relu"]
    assert list(probe.report.layers) == ["seen"]
    last = L.Conv2D(4, 1, data_format="channels_last")  # the last axis, where nothing says otherwise
    model, probe = Subclassed(last, relu()), ReluProbe(strict=True)
    model.compile(K.optimizers.SGD(0.0), "mse", run_eagerly=True)
    model.fit(IMAGES, np.ones((6, 1)), verbose=0, callbacks=[probe])
    assert probe.report["relu"].neurons == 4


EINSUM = {  # equation -> (output shape, axes of the neurons)
    "abc,cd->abd": ((4, 5), (2,)),
    "abc,cd->adb": ((5, 4), (1,)),
    "abc,cde->abde": ((4, 5, 2), (2, 3)),
    "abc,cde->adbe": ((5, 4, 2), (1, 3)),
    "abc,cde->abed": ((4, 2, 5), (2, 3)),
    "abc,bcd->abd": ((4, 5), (1, 2)),
    "...c,cd->...d": ((5,), (2,)),
}


@pytest.mark.parametrize("behind", [False, True], ids=["own", "a ReLU layer behind"])
@pytest.mark.parametrize("equation", list(EINSUM))
def test_the_neurons_of_einsum_dense_are_all_axes_of_its_kernel(equation, behind):
    shape, axes = EINSUM[equation]
    einsum = L.EinsumDense(equation, shape, activation=None if behind else "relu", name="einsum")
    x = K.Input((4, 3))
    output = einsum(x)
    output = relu()(output) if behind else output
    model, probe = K.Model(x, L.Dense(1, kernel_initializer="ones")(L.Flatten()(output))), ReluProbe(strict=True)
    model.compile(K.optimizers.SGD(0.0), K.losses.MeanSquaredError(reduction="sum"))
    found = np.asarray(K.Model(x, output)(SEQUENCES))
    model.fit(SEQUENCES, np.full((6, 1), 99.0), batch_size=4, verbose=0, shuffle=False, callbacks=[probe])
    expected = (np.moveaxis(found, axes, range(-len(axes), 0)) > 0).reshape(-1, np.prod([found.shape[i] for i in axes]))
    for report in (probe.report, measure(model, (SEQUENCES, np.full((6, 1), 99.0)))):
        (layer,) = report.layers.values()
        assert layer.active.tolist() == expected.sum(0).tolist()
        assert layer.with_gradient.tolist() == expected.sum(0).tolist()
        assert layer.positions == len(expected)
        assert layer.samples == 6
    assert (expected.shape[1] == found.shape[-1]) == (axes == (found.ndim - 1,))  # the last axis alone would be wrong


def test_an_rnn_stands_between_two_relus():
    """An RNN layer is no layer that is skipped: the second ReLU does not stand behind the first."""
    layers = [L.Dense(4, "relu", name="first"), L.LSTM(3), relu()]
    model = K.Sequential([K.Input((4, 3)), *layers, L.Dense(1)])
    assert [each.key for each in find_relus(model)] == ["first", "relu"]


def test_a_diagnosis_of_neurons_on_two_axes():
    """It says what was counted; which weights are whose it does not know."""
    einsum = L.EinsumDense("abc,cde->abde", (4, 5, 2), "relu", bias_axes="de", name="einsum")
    model = K.Sequential([K.Input((4, 3)), einsum, L.Flatten(), L.Dense(1)])
    bias = np.full((5, 2), 0.1, "f")
    bias[3, 1] = -50
    einsum.set_weights([einsum.get_weights()[0], bias])
    model.compile(K.optimizers.SGD(0.0), "mse")
    diagnosis = diagnose(model, (SEQUENCES, np.ones((6, 1))))
    assert np.flatnonzero(diagnosis.report["einsum"].dead).tolist() == [7]
    assert "einsum" in str(diagnosis)


class OneNeuron(L.Layer):
    def __init__(self):
        super().__init__(name="block")
        self.first, self.second = L.Dense(8), L.Dense(1)

    def call(self, x):
        return tf.nn.relu(self.second(tf.nn.relu(self.first(x))))


def test_the_axis_of_a_single_neuron_is_proved():
    report = measure(K.Sequential([K.Input((3,)), OneNeuron()]), np.ones((4, 3), "f"))
    assert ({key: layer.neurons for key, layer in report.items()}, report.unseen) == (
        {"block/relu": 8, "block/relu_1": 1},
        {},
    )
