"""Small models of every structure: adding a row to the table of what works is adding a function here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from stacks import KERAS, LEGACY

K = tf.keras
L = tf.keras.layers
SAMPLES, BATCH = 23, 8  # the last batch is a partial one

_ROWS: dict[str, "Row"] = {}


@dataclass(frozen=True)
class Row:
    """One model, compiled with SGD at rate 0 (the weights stay), its data, and the keys that must be counted."""

    title: str
    build: Callable[[], Any]
    keys: tuple[str, ...]
    x: Callable[[], Any]
    y: Callable[[], Any]
    saves: bool = True  # whether Keras itself can save and load it
    places: dict[str, int] = field(default_factory=dict)  # positions a sample, where not 1


def rows() -> dict[str, Row]:
    return _ROWS


def inputs(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SAMPLES, *shape)).astype("float32")


def row(
    keys: str, shape: tuple[int, ...] = (6,), x: Any = None, y: Any = None, saves: bool = True, **places: int
) -> Any:
    def add(build: Callable[[], Any]) -> Callable[[], Any]:
        _ROWS[build.__name__] = Row(
            title=(build.__doc__ or "").strip().rstrip("."),
            build=build,
            keys=tuple(keys.split()),
            x=x or (lambda: inputs(*shape)),
            y=y or (lambda: inputs(1, seed=1)),
            saves=saves,
            places=places,
        )
        return build

    return add


def dense(units: int = 5, name: str | None = None, activation: Any = "relu", **more: Any) -> Any:
    """A Dense layer whose neuron 0 is dead by its bias."""
    bias = K.initializers.Constant([-50.0] + [0.1] * (units - 1))
    return L.Dense(units, activation, name=name, bias_initializer=bias, **more)


def compiled(model: Any, loss: Any = "mse", rate: float = 0.0, **more: Any) -> Any:
    model.compile(K.optimizers.SGD(rate), loss, **more)
    return model


@row("a b")
def sequential() -> Any:
    """`Sequential`"""
    return compiled(K.Sequential([K.Input((6,)), dense(name="a"), dense(4, "b"), L.Dense(1)]))


@row("a b")
def sequential_unbuilt() -> Any:
    """`Sequential` without an input shape"""
    return compiled(K.Sequential([dense(name="a"), dense(4, "b"), L.Dense(1)]))


@row("left right joined")
def branches() -> Any:
    """Functional, with branches"""
    x = K.Input((6,))
    joined = dense(4, "joined")(L.Concatenate()([dense(3, "left")(x), dense(5, "right")(x)]))
    return compiled(K.Model(x, L.Dense(1)(joined)))


@row(
    "a b",
    x=lambda: {"one": inputs(3), "two": inputs(4, seed=2)},
    y=lambda: {"p": inputs(1, seed=1), "q": inputs(2, seed=3)},
)
def dict_inputs_outputs() -> Any:
    """Several inputs and outputs, as dicts"""
    one, two = K.Input((3,), name="one"), K.Input((4,), name="two")
    a, b = dense(name="a")(one), dense(4, "b")(two)
    both = L.Concatenate()([a, b])
    model = K.Model({"one": one, "two": two}, {"p": L.Dense(1, name="p")(both), "q": L.Dense(2, name="q")(b)})
    return compiled(model, {"p": "mse", "q": "mae"})


@row("a b", x=lambda: [inputs(3), inputs(4, seed=2)], y=lambda: [inputs(1, seed=1), inputs(2, seed=3)])
def list_inputs_outputs() -> Any:
    """Several inputs and outputs, as lists"""
    one, two = K.Input((3,)), K.Input((4,))
    a, b = dense(name="a")(one), dense(4, "b")(two)
    p, q = L.Dense(1, name="p")(L.Concatenate()([a, b])), L.Dense(2, name="q")(b)  # names are keys of the History
    model = K.Model([one, two], [p, q])
    return compiled(model, ["mse", "mae"])


@row("inmost middle outer")
def nested() -> Any:
    """Models nested three deep"""
    inmost = K.Sequential([K.Input((6,)), dense(name="inmost")], name="m3")
    middle = K.Sequential([K.Input((6,)), inmost, dense(4, "middle")], name="m2")
    x = K.Input((6,))
    return compiled(K.Model(x, L.Dense(1)(dense(3, "outer")(middle(x)))))


@row("shared", x=lambda: [inputs(6), inputs(6, seed=2)], shared=2)
def shared() -> Any:
    """A layer called twice (positions add)"""
    one, two, layer = K.Input((6,)), K.Input((6,)), dense(name="shared")
    return compiled(K.Model([one, two], L.Dense(1)(L.Subtract()([layer(one), layer(two)]))))


@row("hidden", x=lambda: [inputs(6), inputs(6, seed=2)], hidden=2)
def shared_model() -> Any:
    """A whole model called twice"""
    inner = K.Sequential([K.Input((6,)), dense(name="hidden"), L.Dense(2)])
    one, two = K.Input((6,)), K.Input((6,))
    return compiled(K.Model([one, two], L.Dense(1)(L.Subtract()([inner(one), inner(two)]))))


class Subclassed(K.Model):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = [dense(name="a"), dense(4, "b")]
        self.heads = {"x": dense(3, "c"), "more": [L.Dense(1)]}

    def call(self, x: Any, training: bool = False) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.heads["more"][0](self.heads["x"](x))


@row("a b c", saves=False)
def subclassed() -> Any:
    """Subclassed, layers in lists and dicts"""
    return compiled(Subclassed())


class Residual(L.Layer):
    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.inner = dense(6, "inner")
        self.act = L.ReLU(name="act")

    def call(self, x: Any) -> Any:
        return self.act(x + self.inner(x))


@row("inner act", saves=False)
def custom_layer() -> Any:
    """Layers inside custom layers"""
    return compiled(K.Sequential([K.Input((6,)), Residual(name="block"), L.Dense(1)]))


@row("hidden", (4, 6), hidden=4)
def time_distributed() -> Any:
    """`TimeDistributed`"""
    wrapped = L.TimeDistributed(dense(name="hidden"))
    return compiled(K.Sequential([K.Input((4, 6)), wrapped, L.Flatten(), L.Dense(1)]))


@row("hidden", (4, 6), hidden=4)
def dense_on_sequences() -> Any:
    """Dense on `(batch, time, features)`"""
    return compiled(K.Sequential([K.Input((4, 6)), dense(name="hidden"), L.Flatten(), L.Dense(1)]))


@row("conv", (6, 2), conv=4)
def conv1d() -> Any:
    """`Conv1D`"""
    return compiled(
        K.Sequential([K.Input((6, 2)), L.Conv1D(3, 3, activation="relu", name="conv"), L.Flatten(), L.Dense(1)])
    )


@row("conv act", (6, 6, 2), conv=16, act=16)
def conv2d() -> Any:
    """`Conv2D`, BatchNormalization, `Activation`"""
    layers = [
        L.Conv2D(3, 3, activation="relu", name="conv"),
        L.Conv2D(4, 1),
        L.BatchNormalization(),
        L.Activation("relu", name="act"),
    ]
    return compiled(K.Sequential([K.Input((6, 6, 2)), *layers, L.Flatten(), L.Dense(1)]))


@row("conv", (4, 4, 4, 1), conv=27)
def conv3d() -> Any:
    """`Conv3D`"""
    return compiled(
        K.Sequential([K.Input((4, 4, 4, 1)), L.Conv3D(3, 2, activation="relu", name="conv"), L.Flatten(), L.Dense(1)])
    )


@row("deep", (6, 6, 2), deep=16)
def depthwise() -> Any:
    """`DepthwiseConv2D`"""
    layer = L.DepthwiseConv2D(3, activation="relu", name="deep")
    return compiled(K.Sequential([K.Input((6, 6, 2)), layer, L.Flatten(), L.Dense(1)]))


@row("separable", (6, 6, 2), separable=16)
def separable() -> Any:
    """`SeparableConv2D`"""
    layer = L.SeparableConv2D(3, 3, activation="relu", name="separable")
    return compiled(K.Sequential([K.Input((6, 6, 2)), layer, L.Flatten(), L.Dense(1)]))


@row("up", (3, 3, 2), up=36)
def transposed() -> Any:
    """`Conv2DTranspose`"""
    layer = L.Conv2DTranspose(3, 2, strides=2, activation="relu", name="up")
    return compiled(K.Sequential([K.Input((3, 3, 2)), layer, L.Flatten(), L.Dense(1)]))


@row("deep separable up", (8, 2), deep=6, separable=4, up=8)
def convolutions_of_one_dimension() -> Any:
    """Depthwise, separable and transposed convolutions of one dimension"""
    layers = [
        L.DepthwiseConv1D(3, activation="relu", name="deep"),
        L.SeparableConv1D(3, 3, activation="relu", name="separable"),
        L.Conv1DTranspose(2, 2, strides=2, activation="relu", name="up"),
    ]
    return compiled(K.Sequential([K.Input((8, 2)), *layers, L.Flatten(), L.Dense(1)]))


@row("einsum", (4, 6), einsum=4)
def einsum_dense() -> Any:
    """`EinsumDense`"""
    layer = L.EinsumDense("abc,cd->abd", (4, 5), bias_axes="d", activation="relu", name="einsum")
    return compiled(K.Sequential([K.Input((4, 6)), layer, L.Flatten(), L.Dense(1)]))


@row("hidden", (4, 3))
def with_rnn() -> Any:
    """RNN layers in the model (their own ReLUs are not counted)"""
    rnn = L.SimpleRNN(6, activation="relu")
    return compiled(K.Sequential([K.Input((4, 3)), rnn, dense(name="hidden"), L.Dense(1)]))


def tokens() -> np.ndarray:
    """`(samples, 4)` integers; 0 is padding, which the mask hides."""
    return np.random.default_rng(0).integers(0, 7, (SAMPLES, 4))


@row("hidden pooled", x=tokens, hidden=4)
def masked() -> Any:
    """`Embedding` of integers with a mask (positions that a mask hides are counted)"""
    layers = [L.Embedding(7, 6, mask_zero=True), dense(name="hidden"), L.GlobalAveragePooling1D(), dense(4, "pooled")]
    return compiled(K.Sequential([K.Input((4,), dtype="int32"), *layers, L.Dense(1)]))


def time_distributed_model() -> Any:
    """A model inside `TimeDistributed`"""
    inner = K.Sequential([K.Input((6,)), dense(name="hidden"), L.Dense(2)])
    return compiled(K.Sequential([K.Input((4, 6)), L.TimeDistributed(inner), L.Flatten(), L.Dense(1)]))


if not LEGACY:  # tf_keras calls such a model twice, once for its mask: see test_keras_names.py
    row("hidden", (4, 6), hidden=4, saves=KERAS > (3, 3))(time_distributed_model)  # Keras 3.3 cannot clone it


@row("hidden", (4, 3), hidden=4)
def with_bidirectional() -> Any:
    """Bidirectional RNN and RNN cells in the model (not counted)"""
    layers = [
        L.Bidirectional(L.SimpleRNN(3, activation="relu", return_sequences=True)),
        L.RNN(L.SimpleRNNCell(5, "relu"), return_sequences=True),
    ]
    return compiled(K.Sequential([K.Input((4, 3)), *layers, dense(name="hidden"), L.Flatten(), L.Dense(1)]))


@row("feed", (4, 6), feed=4)
def attention() -> Any:
    """`MultiHeadAttention` with a ReLU feed-forward"""
    x = K.Input((4, 6))
    attended = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(2, 3)(x, x)]))
    fed = L.Add()([attended, L.Dense(6)(dense(8, "feed")(attended))])
    return compiled(K.Model(x, L.Dense(1)(L.GlobalAveragePooling1D()(fed))))


@row("relu" if hasattr(K, "ops") else "tf.nn.relu")
def functional_op() -> Any:
    """`keras.ops.relu` in a functional graph"""
    x = K.Input((6,))
    hidden = L.Dense(5, name="before")(x)
    hidden = K.ops.relu(hidden) if hasattr(K, "ops") else tf.nn.relu(hidden)
    return compiled(K.Model(x, L.Dense(1)(hidden)))


@row("frozen tuned")
def frozen() -> Any:
    """Frozen layers"""
    return compiled(K.Sequential([K.Input((6,)), dense(name="frozen", trainable=False), dense(4, "tuned"), L.Dense(1)]))


@row("left/hidden right/hidden")
def same_names() -> Any:
    """Two layers of one name in different sub-models"""
    x = K.Input((6,))
    halves = [K.Sequential([K.Input((6,)), dense(name="hidden")], name=name)(x) for name in ("left", "right")]
    return compiled(K.Model(x, L.Dense(1)(L.Concatenate()(halves))))


class Student(K.Model):
    """A teacher and a student: the `train_step` is the user's own, and the outer model has no `call` of use."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = K.Sequential([K.Input((6,)), dense(name="taught"), L.Dense(1)], name="teacher")
        self.student = K.Sequential([K.Input((6,)), dense(4, "learned"), L.Dense(1)], name="student")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.student(x, training=training)

    def train_step(self, data: Any) -> Any:
        x, wanted = data[0], self.teacher(data[0], training=False)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(wanted - self.student(x, training=True)))
        weights = self.student.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"loss": loss}


@row("taught learned", saves=False)
def teacher_and_student() -> Any:
    """A wrapper with a `train_step` of its own (teacher and student)"""
    return compiled(Student())


class GAN(K.Model):
    """Two optimizers, two tapes over one generator call."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = K.Sequential([K.Input((6,)), dense(name="made"), L.Dense(6)], name="generator")
        self.discriminator = K.Sequential([K.Input((6,)), dense(4, "judged"), L.Dense(1)], name="discriminator")
        self.second = K.optimizers.SGD(0.0)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.discriminator(self.generator(x))

    def train_step(self, data: Any) -> Any:
        x = data[0]
        with tf.GradientTape(persistent=True) as tape:
            fake = self.generator(x, training=True)
            judged, real = self.discriminator(fake), self.discriminator(x)
            d_loss = tf.reduce_mean(tf.nn.softplus(judged)) + tf.reduce_mean(tf.nn.softplus(-real))
            g_loss = tf.reduce_mean(tf.nn.softplus(-judged))
        for net, loss, optimizer in (
            (self.discriminator, d_loss, self.optimizer),
            (self.generator, g_loss, self.second),
        ):
            weights = net.trainable_weights
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"d_loss": d_loss, "g_loss": g_loss}


@row("made judged", saves=False, judged=2)
def gan() -> Any:
    """A GAN with two optimizers and one persistent tape"""
    return compiled(GAN())


@row("conv act", (2, 6, 6), conv=16, act=16)
def channels_first() -> Any:
    """`channels_first` (counts channels)"""
    x = K.Input((2, 6, 6))
    hidden = L.Conv2D(3, 3, activation="relu", data_format="channels_first", name="conv")(x)
    hidden = L.BatchNormalization(axis=1)(L.Conv2D(4, 1, data_format="channels_first")(hidden))
    return compiled(K.Model(x, L.Dense(1)(L.Flatten()(L.ReLU(name="act")(hidden)))))
