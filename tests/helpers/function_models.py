"""Models with ReLUs that are written as functions, after public code, each with the keys of its ReLUs in the order in which they run."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

K, L = tf.keras, tf.keras.layers


class Case(NamedTuple):
    """A model, a batch, and the key of each ReLU of one forward pass. A layer's key has `!` in front."""

    model: Any
    x: Any
    y: Any
    keys: list[str]


class ResnetIdentityBlock(K.Model):
    """TensorFlow's tutorial of custom layers."""

    def __init__(self, kernel_size: int, filters: tuple[int, int, int]) -> None:
        super().__init__(name="block")
        self.conv2a, self.bn2a = L.Conv2D(filters[0], (1, 1)), L.BatchNormalization()
        self.conv2b, self.bn2b = L.Conv2D(filters[1], kernel_size, padding="same"), L.BatchNormalization()
        self.conv2c, self.bn2c = L.Conv2D(filters[2], (1, 1)), L.BatchNormalization()

    def call(self, input_tensor, training=False):
        x = tf.nn.relu(self.bn2a(self.conv2a(input_tensor), training=training))
        x = tf.nn.relu(self.bn2b(self.conv2b(x), training=training))
        x = self.bn2c(self.conv2c(x), training=training)
        x += input_tensor
        return tf.nn.relu(x)


class Pyramid(L.Layer):
    """A feature pyramid, whose prediction head is shared by all levels."""

    def __init__(self) -> None:
        super().__init__(name="fpn")
        self.down = [L.Conv2D(4, 3, 2, padding="same") for _ in range(3)]
        self.head, self.out = L.Conv2D(4, 3, padding="same"), L.Conv2D(2, 1)

    def call(self, x):
        levels = []
        for down in self.down:
            x = down(tf.nn.relu(x) if levels else x)
            levels.append(x)
        return sum(tf.reduce_mean(self.out(tf.nn.relu(self.head(level))), [1, 2]) for level in levels)


class SqueezeExcite(L.Layer):
    """A squeeze-and-excite block."""

    def __init__(self) -> None:
        super().__init__(name="se")
        self.squeeze, self.excite = L.Dense(3), L.Dense(2)

    def call(self, x):
        pooled = tf.reduce_mean(x, [1, 2])
        scale = tf.sigmoid(self.excite(tf.nn.relu(self.squeeze(pooled))))
        return x * scale[:, None, None, :]


class MLPBlock(L.Layer):
    """Keras's guide of making new layers."""

    def __init__(self) -> None:
        super().__init__(name="mlp")
        self.linear_1, self.linear_2, self.linear_3 = Linear(6), Linear(5), Linear(1)

    def call(self, inputs):
        x = tf.nn.relu(self.linear_1(inputs))
        x = tf.nn.relu(self.linear_2(x))
        return self.linear_3(x)


class Linear(L.Layer):
    """A matrix product with a bias, of raw weights."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units), initializer="random_normal", name="w")
        self.b = self.add_weight(shape=(self.units,), initializer="random_normal", name="b")

    def call(self, inputs):
        return tf.matmul(inputs, self.w) + self.b


class Antirectifier(L.Layer):
    """Keras's example of a custom layer."""

    def __init__(self) -> None:
        super().__init__(name="anti")

    def build(self, input_shape):
        shape = (input_shape[-1] * 2, input_shape[-1])
        self.kernel = self.add_weight(shape=shape, initializer="glorot_uniform", name="kernel")

    def call(self, inputs):
        inputs -= tf.reduce_mean(inputs, axis=-1, keepdims=True)
        pos, neg = tf.nn.relu(inputs), tf.nn.relu(-inputs)
        return tf.matmul(tf.concat([pos, neg], axis=-1), self.kernel)


class GraphConvolution(L.Layer):
    """A relational graph convolution over dense adjacency matrices, one a relation."""

    def __init__(self) -> None:
        super().__init__(name="rgcn")
        self.weights_of = [L.Dense(5, use_bias=False) for _ in range(2)]
        self.own = L.Dense(5)

    def call(self, inputs):
        adjacency, nodes = inputs[..., :4, :4], inputs[..., :4, 4:]
        messages = [tf.matmul(adjacency, dense(nodes)) for dense in self.weights_of]
        return tf.nn.relu(self.own(nodes) + sum(messages))


class Residual(L.Layer):
    """A residual block that holds its activation as an attribute."""

    def __init__(self) -> None:
        super().__init__(name="res")
        self.activation = K.activations.get("relu")
        self.a, self.b = L.Dense(4), L.Dense(4)

    def call(self, x):
        return self.activation(x + self.b(self.activation(self.a(x))))


class ReluDense(L.Dense):
    """A Dense layer with a ReLU in its `call`."""

    def call(self, inputs):
        return tf.maximum(super().call(inputs), 0.0)


class MadeInside(L.Layer):
    """Makes its ReLU layer in `call`, and clips."""

    def __init__(self) -> None:
        super().__init__(name="inside")
        self.a, self.b = L.Dense(5), L.Dense(5)

    def call(self, x):
        return tf.clip_by_value(self.b(L.ReLU()(self.a(x))), 0.0, 0.25)


class Mixed(K.Model):
    """Layers and functions, in a model's own call; a Dense layer is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.twice, self.out = L.Dense(6, "relu", name="hidden"), L.Dense(6), L.Dense(1)
        self.block = Residual()
        self.first = L.Dense(4)

    def call(self, x):
        x = self.hidden(self.block(self.block(self.first(x))))
        return self.out(tf.nn.relu(self.twice(tf.nn.relu6(self.twice(x)))))


def _sequential(shape: tuple[int, ...], *layers: Any) -> Any:
    return K.Sequential([K.Input(shape), *layers])


def _image() -> Any:
    return np.random.default_rng(0).standard_normal((12, 6, 6, 2)).astype("f")


def _vectors() -> Any:
    return np.random.default_rng(1).standard_normal((12, 4)).astype("f")


def _over_images(block: Any, *ends: Any) -> Any:
    return _sequential((6, 6, 2), L.Conv2D(2, 1), block, *ends)


MODELS = {
    "identity block": lambda: (
        _over_images(ResnetIdentityBlock(3, (3, 4, 2)), L.Flatten(), L.Dense(1)),
        _image(),
        ["block/relu", "block/relu_1", "block/relu_2"],
    ),
    "pyramid": lambda: (
        _over_images(Pyramid(), L.Dense(1)),
        _image(),
        ["fpn/relu", "fpn/relu_1", "fpn/relu_2", "fpn/relu_3", "fpn/relu_4"],
    ),
    "squeeze and excite": lambda: (
        _over_images(SqueezeExcite(), L.ReLU(name="act"), L.Flatten(), L.Dense(1)),
        _image(),
        ["se/relu", "act"],
    ),
    "mlp": lambda: (_sequential((4,), MLPBlock()), _vectors(), ["mlp/relu", "mlp/relu_1"]),
    "antirectifier": lambda: (
        _sequential((4,), L.Dense(5), Antirectifier(), L.Dense(1)),
        _vectors(),
        ["anti/relu", "anti/relu_1"],
    ),
    "graph convolution": lambda: (
        _sequential((5, 9), GraphConvolution(), L.Flatten(), L.Dense(1)),
        np.random.default_rng(2).standard_normal((12, 5, 9)).astype("f"),
        ["rgcn/relu"],
    ),
    "residual": lambda: (
        _sequential((4,), L.Dense(4, "relu", name="first"), Residual(), L.Dense(1)),
        _vectors(),
        ["first", "res/relu", "res/relu_1"],
    ),
    "dense subclass": lambda: (_sequential((4,), ReluDense(5, name="d"), L.Dense(1)), _vectors(), ["d/relu"]),
    "made inside": lambda: (
        _sequential((4,), MadeInside(), L.Dense(1)),
        _vectors(),
        ["inside/relu", "inside/relu_1"],
    ),
    "mixed": lambda: (
        Mixed(),
        _vectors(),
        ["res/relu", "res/relu_1", "res/relu", "res/relu_1", "hidden", "relu", "relu_1"],
    ),
}


def build(name: str, *, mixed: bool = False, **compile_args: Any) -> Case:
    """Returns a model, compiled with a rate of 0, with a dead and a live neuron in most ReLUs; `mixed`: behind a ReLU layer."""
    K.utils.set_random_seed(3)
    model, x, keys = MODELS[name]()
    if mixed:
        is_plain = isinstance(model, K.Sequential)
        keys = ["before", *(key if is_plain or "relu" not in key else f"{model.name}/{key}" for key in keys)]
        model = _sequential(
            x.shape[1:], L.Dense(x.shape[-1], "relu", name="before"), *(model.layers if is_plain else [model])
        )
    model(x)  # builds a subclassed model
    rng = np.random.default_rng(4)
    model.set_weights(
        [w if w.ndim > 1 else w + 0.3 * rng.standard_normal(w.shape).astype("f") for w in model.get_weights()]
    )
    model.compile(K.optimizers.SGD(0.0), "mse", **compile_args)
    return Case(model, x, rng.standard_normal((len(x), *model(x).shape[1:])).astype("f"), keys)
