"""The zoo: a small model of every structure that the README says works.

To add a structure, add a function: to `parts.py` if it can be a part of any functional model, otherwise here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import harm
import numpy as np
import tensorflow as tf
from keras_version import KERAS, LEGACY
from models import dense
from parts import PARTS, Make, Part, distributed

K = tf.keras
L = tf.keras.layers
SAMPLES, BATCH = 23, 8  # the last batch is a partial one

_ROWS: dict[str, "Row"] = {}


@dataclass(frozen=True)
class Row:
    """One model, compiled with SGD at rate 0 (the weights do not change), its data, and the keys that must be counted."""

    title: str
    build: Callable[[], Any]
    keys: tuple[str, ...]
    x: Callable[[], Any]
    y: Callable[[], Any]
    saves: bool = True  # whether Keras itself can save and load it
    places: dict[str, int] = field(default_factory=dict)  # positions per sample, if not 1


def rows() -> dict[str, Row]:
    """Returns all rows by the name of their function."""
    return _ROWS


def inputs(*shape: int, seed: int = 0) -> np.ndarray:
    """Returns normal random values `(SAMPLES, *shape)`."""
    return np.random.default_rng(seed).standard_normal((SAMPLES, *shape)).astype("float32")


def row(
    keys: str, shape: tuple[int, ...] = (6,), x: Any = None, y: Any = None, saves: bool = True, **places: int
) -> Any:
    """Decorator that adds a model to the zoo. The docstring of the function is the row's title."""

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


def compiled(model: Any, loss: Any = "mse", rate: float = 0.0, **more: Any) -> Any:
    """Compiles a model with SGD, and returns it."""
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
    p, q = L.Dense(1, name="p")(L.Concatenate()([a, b])), L.Dense(2, name="q")(b)  # the names are keys of the History
    model = K.Model([one, two], [p, q])
    return compiled(model, ["mse", "mae"])


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


def tokens() -> np.ndarray:
    """Returns `(SAMPLES, 4)` integers; 0 is padding, which the mask hides."""
    return np.random.default_rng(0).integers(0, 7, (SAMPLES, 4))


@row("hidden pooled", x=tokens, hidden=4)
def masked() -> Any:
    """`Embedding` of integers with a mask (positions that a mask hides are counted)"""
    layers = [L.Embedding(7, 6, mask_zero=True), dense(name="hidden"), L.GlobalAveragePooling1D(), dense(4, "pooled")]
    return compiled(K.Sequential([K.Input((4,), dtype="int32"), *layers, L.Dense(1)]))


def time_distributed_model() -> Any:
    """A model inside `TimeDistributed`"""
    return compiled(K.Sequential([K.Input((4, 6)), distributed((6,), Make()), L.Flatten(), L.Dense(1)]))


if not LEGACY:  # tf_keras calls such a model twice, once for its mask: see tests/upstream/test_keras_names.py
    row("hidden", (4, 6), hidden=4, saves=KERAS > (3, 3))(time_distributed_model)  # Keras 3.3 cannot clone it


class Student(K.Model):
    """A teacher and a student, trained by a custom `train_step` that does not call the outer model."""

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
    """A wrapper with its own `train_step` (teacher and student)"""
    return compiled(Student())


class GAN(K.Model):
    """A GAN: two optimizers, and one persistent tape over one call of the generator."""

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


def _row_of(name: str, part: Part) -> None:
    """Adds a row whose model is the part between an input and an output layer."""

    def build() -> Any:
        x = K.Input(part.shape)
        return compiled(K.Model(x, L.Dense(1)(L.Flatten()(part(x, Make())))))

    build.__name__, build.__doc__ = name, part.add.__doc__
    row(part.keys, part.shape, **part.more)(build)


for _name, _part in PARTS.items():
    if _part.keys:
        _row_of(_name, _part)


def killed(row):
    """The built model of a row, with a dead neuron 0 in each ReLU layer that has a bias."""
    model = row.build()
    model(tf.nest.map_structure(tf.constant, row.x()))
    for layer in model._flatten_layers():
        norm = isinstance(layer, L.BatchNormalization)
        relu = getattr(getattr(layer, "activation", None), "__name__", "") == "relu"
        offset = layer.beta if norm else getattr(layer, "bias", None) if relu else None
        if offset is not None and len(offset.shape) == 1:
            offset.assign(tf.concat([[-50.0], tf.convert_to_tensor(offset)[1:]], 0))
    return model


def train_zoo(name, callbacks, samples=SAMPLES, **compile_args):
    """Trains the model of a row with Adam from one seed, and returns what `harm.fitted` returns."""
    row = rows()[name]
    K.utils.set_random_seed(1)
    model = row.build()
    model.compile(K.optimizers.Adam(0.01), model.loss, **compile_args)
    if name == "gan":
        model.second.learning_rate = 0.01
    x, y = tf.nest.map_structure(lambda a: a[:samples], (row.x(), row.y()))
    if model.built:
        # Keras 3.3 says `built` of a `Sequential` whose build stopped at a layer of unknown output shape.
        model(tf.nest.map_structure(lambda a: tf.constant(a[:1]), x))
        model.optimizer.build(model.trainable_variables)  # without it the step is traced twice
    return harm.fitted(model, callbacks, x, y, batch_size=BATCH)
