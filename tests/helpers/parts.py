"""Building blocks of models: functions that add layers to a tensor, for the zoo and for the fuzz test.

To add a block, add a function here. Its counted layers come from `make`, so that the fuzz test can draw another kind of ReLU.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from keras_version import KERAS
from models import dense

K, L = tf.keras, tf.keras.layers
PARTS: dict[str, "Part"] = {}


@dataclass(frozen=True)
class Part:
    """A building block: the function, the keys of the layers that must be counted, and its input shape in the zoo."""

    add: Callable[[Any, "Make"], Any]
    keys: str
    shape: tuple[int, ...]
    more: dict[str, Any]  # other arguments of the zoo's row

    def __call__(self, h: Any, make: "Make") -> Any:
        """Adds the block to `h`, after reshaping `h` to the number of axes that the block takes.

        Surplus axes are merged; missing ones are added with length 2, because TensorFlow 2.16's convolutions crash on images
        of one row.
        """
        *places, last = h.shape[1:]
        wanted = len(self.shape) - 1
        if wanted > len(places):
            lacking = [2] * (wanted - len(places))
            h = L.Reshape((*places, *lacking, last))(L.Dense(2 ** len(lacking) * last)(h))
        elif 0 < wanted < len(places):
            h = L.Reshape((-1, *h.shape[-wanted:]))(h)
        return self.add(h, make)


class Make:
    """Makes the layers of a block. This class makes plain ReLUs, for the zoo."""

    units = 4
    grid: tuple[Any, ...] = ()  # layers to put before and after an operation that rounds

    def __call__(self, layer: Any, *args: Any, **more: Any) -> list[Any]:
        """Returns layers to be called in sequence, the last of which ends in a ReLU."""
        return [dense(*args, **more) if layer is L.Dense else layer(*args, activation="relu", **more)]

    def name(self, name: str) -> str:
        """Returns the name that a layer gets."""
        return name


def run(h: Any, layers: Any) -> Any:
    """Calls the layers in sequence."""
    for layer in layers:
        h = layer(h)
    return h


def part(keys: str = "", shape: tuple[int, ...] = (6,), **more: Any) -> Any:
    """Decorator that adds a building block to `PARTS`. The first docstring line is its title; without `keys` it is no row of the zoo."""

    def keep(add: Any) -> Any:
        PARTS[add.__name__] = Part(add, keys, shape, more)
        return add

    return keep


def _model(shape: Any, layers: list[Any], name: str | None = None) -> Any:
    return K.Sequential([K.Input(tuple(shape)), *layers], name=name)


def _neurons(layer: Any, *axes: int) -> Any:
    """Tells the oracle which axes of a layer's output are the neurons; returns the layer."""
    vars(layer)["neuron_axes"] = axes  # in vars, because Keras tracks attributes
    return layer


def _same_shape(h: Any) -> Any:
    return L.Dense(int(h.shape[-1]))(h)


# --- vectors, or the last axis of anything ----------------------------------------------------------------------------


@part()
def plain(h: Any, make: Make) -> Any:
    return run(h, make(L.Dense, make.units, name="hidden"))


@part()
def dropout(h: Any, make: Make) -> Any:
    return L.Dropout(0.5)(h)


@part("left right joined")
def branches(h: Any, make: Make) -> Any:
    """Functional, with branches"""
    both = [run(h, make(L.Dense, units, name=name)) for units, name in ((make.units, "left"), (2, "right"))]
    return run(L.Concatenate()(both), make(L.Dense, make.units, name="joined"))


@part("inmost middle outer")
def nested(h: Any, make: Make) -> Any:
    """Models nested three deep"""
    inmost = _model(h.shape[1:], make(L.Dense, 5, name="inmost"), make.name("m3"))
    middle = _model(h.shape[1:], [inmost, *make(L.Dense, make.units, name="middle")], make.name("m2"))
    return run(middle(h), make(L.Dense, 3, name="outer"))


@part("shared", shared=2)
def shared(h: Any, make: Make) -> Any:
    """A layer called twice (positions add)"""
    layers = make(L.Dense, make.units, name="shared")
    return L.Subtract()([run(h, layers), run(_same_shape(h), layers)])


@part("hidden", hidden=2)
def shared_model(h: Any, make: Make) -> Any:
    """A whole model called twice"""
    inner = _model(h.shape[1:], [*make(L.Dense, make.units, name="hidden"), L.Dense(2)])
    return L.Subtract()([inner(h), inner(_same_shape(h))])


class Residual(L.Layer):
    def __init__(self, units: int, **more: Any) -> None:
        super().__init__(**more)
        self.inner = dense(units, "inner")
        self.act = L.ReLU(name="act")

    def call(self, x: Any) -> Any:
        return self.act(x + self.inner(x))


@part("inner act", saves=False)
def custom_layer(h: Any, make: Make) -> Any:
    """Layers inside custom layers"""
    return Residual(int(h.shape[-1]), name=make.name("block"))(h)


@part("relu" if hasattr(K, "ops") else "tf.nn.relu")
def functional_op(h: Any, make: Make) -> Any:
    """`keras.ops.relu` in a functional graph"""
    hidden = L.Dense(make.units, name=make.name("before"))(h)
    return K.ops.relu(hidden) if hasattr(K, "ops") else tf.nn.relu(hidden)


@part("frozen tuned")
def frozen(h: Any, make: Make) -> Any:
    """Frozen layers"""
    layers = make(L.Dense, make.units, trainable=False, name="frozen")
    return run(h, [*layers, *make(L.Dense, make.units, name="tuned")])


@part("left/hidden right/hidden")
def same_names(h: Any, make: Make) -> Any:
    """Two layers of one name in different sub-models"""
    names = [make.name(name) for name in ("left", "right")]
    return L.Concatenate()([_model(h.shape[1:], make(L.Dense, make.units, name="hidden"), name)(h) for name in names])


# --- sequences --------------------------------------------------------------------------------------------------------


@part("hidden", (4, 6), hidden=4)
def time_distributed(h: Any, make: Make) -> Any:
    """`TimeDistributed`"""
    layer, *ends = make(L.Dense, make.units, name="hidden")
    return run(h, [L.TimeDistributed(layer), *ends])


def distributed(shape: Any, make: Make) -> Any:
    """A model inside `TimeDistributed`, over inputs of this shape."""
    return L.TimeDistributed(_model(shape, [*make(L.Dense, make.units, name="hidden"), L.Dense(2)]))


def time_distributed_model(h: Any, make: Make) -> Any:
    return distributed(h.shape[2:], make)(h)


# Keras 3.3 cannot infer the output shape; tf_keras calls such a model twice (tests/upstream/test_keras_names.py).
if KERAS > (3, 3):
    part(shape=(4, 6))(time_distributed_model)


@part("hidden", (4, 6), hidden=4)
def dense_on_sequences(h: Any, make: Make) -> Any:
    """Dense on `(batch, time, features)`"""
    return plain(h, make)


@part("einsum", (4, 6), einsum=4)
def einsum_dense(h: Any, make: Make) -> Any:
    """`EinsumDense`"""
    shape = (h.shape[1], make.units)
    return run(h, make(L.EinsumDense, "abc,cd->abd", shape, bias_axes="d", name="einsum"))


@part("conv", (6, 2), conv=6)
def conv1d(h: Any, make: Make) -> Any:
    """`Conv1D`"""
    return run(h, make(L.Conv1D, make.units, 3, padding="same", name="conv"))


@part("deep separable up", (8, 2), deep=8, separable=8, up=16)
def convolutions_of_one_dimension(h: Any, make: Make) -> Any:
    """Depthwise, separable and transposed convolutions of one dimension"""
    h = run(h, make(L.DepthwiseConv1D, 3, padding="same", name="deep"))
    h = run(h, make(L.SeparableConv1D, make.units, 3, padding="same", name="separable"))
    return run(h, make(L.Conv1DTranspose, 2, 2, strides=2, name="up"))


@part("hidden", (4, 3))
def with_rnn(h: Any, make: Make) -> Any:
    """RNN layers in the model"""
    return plain(L.SimpleRNN(6)(h), make)


@part("hidden", (4, 3), hidden=4)
def with_bidirectional(h: Any, make: Make) -> Any:
    """Bidirectional RNN and RNN cells in the model"""
    h = L.Bidirectional(L.SimpleRNN(3, return_sequences=True))(h)
    return plain(L.RNN(L.SimpleRNNCell(5), return_sequences=True)(h), make)


@part("feed", (4, 6), feed=4)
def attention(h: Any, make: Make) -> Any:
    """`MultiHeadAttention` with a ReLU feed-forward"""
    width, h = int(h.shape[-1]), run(h, make.grid)
    attended = L.LayerNormalization()(L.Add()([h, L.MultiHeadAttention(2, 3)(h, h)]))
    attended = run(attended, make.grid)
    return L.Add()([attended, L.Dense(width)(run(attended, make(L.Dense, 8, name="feed")))])


# --- images and volumes -----------------------------------------------------------------------------------------------


@part("conv act", (6, 6, 2), conv=36, act=36)
def conv2d(h: Any, make: Make) -> Any:
    """`Conv2D`, BatchNormalization, `Activation`"""
    h = run(h, [*make(L.Conv2D, make.units, 2, padding="same", name="conv"), L.Conv2D(4, 1)])
    return run(h, [*make.grid, L.BatchNormalization(), *make.grid, L.Activation("relu", name=make.name("act"))])


@part("conv", (4, 4, 4, 1), conv=64)
def conv3d(h: Any, make: Make) -> Any:
    """`Conv3D`"""
    return run(h, make(L.Conv3D, make.units, 2, padding="same", name="conv"))


@part("deep", (6, 6, 2), deep=36)
def depthwise(h: Any, make: Make) -> Any:
    """`DepthwiseConv2D`"""
    return run(h, make(L.DepthwiseConv2D, 2, padding="same", name="deep"))


@part("separable", (6, 6, 2), separable=36)
def separable(h: Any, make: Make) -> Any:
    """`SeparableConv2D`"""
    return run(h, make(L.SeparableConv2D, make.units, 2, padding="same", name="separable"))


@part("up", (3, 3, 2), up=36)
def transposed(h: Any, make: Make) -> Any:
    """`Conv2DTranspose`"""
    return run(h, make(L.Conv2DTranspose, make.units, 2, strides=2, name="up"))


@part("conv act", (2, 6, 6), conv=36, act=36)
def channels_first(h: Any, make: Make) -> Any:
    """`channels_first` (counts channels)"""
    first, width = {"data_format": "channels_first", "padding": "same"}, h.shape[-1]
    filters = width + 1  # if it equals the number of columns, Keras 3.15 adds the bias to the columns in eager mode
    conv, act = L.Conv2D(filters, 3, activation="relu", name=make.name("conv"), **first), L.ReLU(name=make.name("act"))
    for layer in (conv, act):
        _neurons(layer, 1)
    h = run(h, [conv, L.Conv2D(filters, 1, **first)])
    return run(h, [*make.grid, L.BatchNormalization(axis=1), *make.grid, act])


@part(shape=(2, 4, 4))
def channels_first_before_a_model(h: Any, make: Make) -> Any:
    """A ReLU in a nested model, behind `channels_first`"""
    conv = L.Conv2D(h.shape[-1] + 1, 1, data_format="channels_first")
    h, act = conv(h), _neurons(L.ReLU(), 1)
    return _model(h.shape[1:], [L.Rescaling(1.0), act])(h)


@part(shape=(4, 6))
def einsum_of_two_axes(h: Any, make: Make) -> Any:
    """`EinsumDense` whose kernel makes two axes"""
    width = int(h.shape[1])
    einsum = _neurons(L.EinsumDense("abc,cde->adbe", (2, width, make.units), activation="relu"), 1, 3)
    return L.Reshape((2 * width, make.units))(einsum(h))


@part(shape=(4, 6))
def permuted(h: Any, make: Make) -> Any:
    """`Permute` between a layer and its ReLU"""
    h = L.Permute((2, 1))(L.Dense(make.units)(h))
    return _neurons(L.ReLU(), 1)(h)


# --- subsets and ties -------------------------------------------------------------------------------------------------


class OnSome(L.Layer):
    """Calls layers on some of the samples, and adds the sum of their outputs to all."""

    def __init__(self, layers: list[Any], select: Any) -> None:
        super().__init__()
        self.inner, self.select = layers, select

    def call(self, x: Any) -> Any:
        return x + tf.reduce_sum(run(self.select(x), self.inner))


def _some(x: Any) -> Any:
    """Returns the samples whose first value is positive, and the first sample."""
    chosen = tf.reshape(x, (-1, x.shape[1:].num_elements()))[:, 0] > 0
    return tf.boolean_mask(x, tf.concat([tf.ones_like(chosen[:1]), chosen[1:]], 0))


@part()
def on_a_mask(h: Any, make: Make) -> Any:
    """A layer that sees some of the samples"""
    return OnSome([L.Dense(2, "relu")], _some)(h)


@part()
def on_one_sample(h: Any, make: Make) -> Any:
    """A layer that sees one sample of each batch"""
    return OnSome([L.Dense(2, "relu")], lambda x: x[:1])(h)


@part()
def gathered(h: Any, make: Make) -> Any:
    """`tf.gather` behind a ReLU, whose gradient is no dense tensor"""
    return OnSome([L.Dense(2, "relu"), L.Lambda(lambda a: tf.gather(a, [0, 0]))], lambda x: x)(h)


@part(shape=(6, 6, 2))
def tied_pool(h: Any, make: Make) -> Any:
    """Max pooling with ties: of each four values two are equal"""
    h = L.UpSampling2D((1, 2))(h)
    return L.MaxPooling2D(2, padding="same")(L.Conv2D(4, 1, activation="relu")(h))


@part(shape=(4, 4, 4, 2))
def tied_pool_3d(h: Any, make: Make) -> Any:
    """Max pooling of volumes with ties, whose gradient may go to each of two equal values"""
    h = L.UpSampling3D((1, 1, 2))(h)
    return L.MaxPooling3D(2, padding="same")(L.Conv3D(2, 1, activation="relu")(h))


# --- code of the user's -----------------------------------------------------------------------------------------------


class Named(L.Layer):
    """Has attributes with the names of Keras's own."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.state_size = units
        self.function, self.activation, self.cell = L.Dense(units), L.ReLU(), L.Dense(units, "relu")

    def call(self, x: Any) -> Any:
        return self.activation(self.function(self.cell(x)))


@part()
def attribute_names(h: Any, make: Make) -> Any:
    """A layer with attributes called `activation`, `function`, `cell` and `state_size`"""
    return Named(make.units)(h)


@part()
def user_functions(h: Any, make: Make) -> Any:
    """Functions of the user's: before a ReLU, as an activation, and as a layer that is a ReLU"""
    h = L.Dense(make.units, activation=lambda t: tf.maximum(t, 0.0))(L.Lambda(lambda t: 2.0 * t)(h))
    return L.Lambda(tf.nn.relu)(L.Dense(make.units)(h))


class BesideAThread(L.Layer):
    """Is called by another thread too, whenever it is called."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.inner = L.Dense(units, "relu")

    def call(self, x: Any) -> Any:
        output = self.inner(x)
        thread = threading.Thread(target=lambda: self.inner(tf.ones((5, *x.shape[1:]))))
        thread.start()
        thread.join(60)
        return output


@part()
def beside_a_thread(h: Any, make: Make) -> Any:
    """A layer that another thread calls during the step: those calls do not count"""
    return BesideAThread(make.units)(h)
