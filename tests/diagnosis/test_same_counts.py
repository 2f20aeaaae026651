"""`diagnose` observes a step and does not change it: its report equals that of `measure`, whatever the loss."""

from itertools import product

import numpy as np
import pytest
import tensorflow as tf
import zoo

from relu_probe import diagnose, measure

K, L = tf.keras, tf.keras.layers
LOSSES = {
    "binary_crossentropy": ("sigmoid", lambda y: y[:, :1]),
    "binary_focal_crossentropy": ("sigmoid", lambda y: y[:, :1]),
    "categorical_crossentropy": ("softmax", lambda y: np.eye(3, dtype="float32")[y[:, 0].astype(int)]),
    "categorical_focal_crossentropy": ("softmax", lambda y: np.eye(3, dtype="float32")[y[:, 0].astype(int)]),
    "sparse_categorical_crossentropy": ("softmax", lambda y: y[:, :1]),
}
KINDS = list(product(LOSSES, (None, 99.0)))  # a kernel of 99 makes the outputs confident: exactly 0 or 1


def classifier(inputs, outputs, loss, size):
    """A model with the outputs, and labels, that the loss expects."""
    activation, labels = LOSSES[loss]
    initializer = (
        K.initializers.RandomUniform(-1, 1, seed=3)
        if size is None
        else K.initializers.RandomUniform(-size, size, seed=3)
    )
    units = 1 if activation == "sigmoid" else 3
    model = K.Model(inputs, L.Dense(units, activation, kernel_initializer=initializer)(outputs))
    model.compile(K.optimizers.SGD(0.0), loss)
    return model, labels(np.random.default_rng(2).integers(0, 2, (zoo.SAMPLES, 1)).astype("float32"))


def assert_same_counts(model, data):
    measured, found = measure(model, data, batch_size=5), diagnose(model, data, batch_size=5).report
    assert list(found) == list(measured)
    assert found.unseen == measured.unseen
    assert found.samples == measured.samples
    for key, layer in measured.layers.items():
        for name in ("positions", "active", "with_gradient", "nan"):
            np.testing.assert_array_equal(getattr(found[key], name), getattr(layer, name))
        if layer.measured:
            np.testing.assert_allclose(found[key].activation_sum, layer.activation_sum, rtol=1e-5)
    return measured


@pytest.mark.parametrize(("loss", "size"), KINDS)
def test_crossentropies_of_confident_and_unsure_classifiers(loss, size):
    x = K.Input((6,))
    model, y = classifier(x, L.Dense(8, "relu", name="h")(x), loss, size)
    report = assert_same_counts(model, (zoo.inputs(6), y))
    assert report["h"].with_gradient.any()


@pytest.mark.parametrize("index", range(len(zoo.rows())), ids=list(zoo.rows()))
def test_models_of_the_zoo(index):
    row = list(zoo.rows().values())[index]
    model, y = row.build(), row.y()
    model(tf.nest.map_structure(tf.constant, row.x()))
    if type(model).__name__ == "Functional" and len(model.outputs) == 1 and not isinstance(row.x(), dict):
        model, y = classifier(model.inputs, L.Flatten()(model.outputs[0]), *KINDS[index % len(KINDS)])
    assert_same_counts(model, (row.x(), y))


def test_a_clipped_probability_has_no_gradient():
    """What the loss would be if the observer passed the outputs on as other tensors: all neurons would be blocked."""
    x = K.Input((6,))
    inner, y = classifier(x, L.Dense(8, "relu", name="h")(x), "binary_crossentropy", 99.0)
    model = K.Model(x, L.Activation(tf.identity)(inner(x)))
    model.compile("sgd", "binary_crossentropy")
    assert (
        measure(model, (zoo.inputs(6), y)).zero_gradient_fraction
        > measure(inner, (zoo.inputs(6), y)).zero_gradient_fraction
    )


class Passing(L.Layer):
    """Hides from the model's structure that the channels come first; the operations of a step show it."""

    def call(self, x):
        return x * 1.0


@pytest.mark.parametrize("channels", [3, 4], ids=["as many as columns", "one more"])
def test_a_diagnosis_tells_the_same_neurons_apart_as_the_counts(channels):
    """The first channel is dead, and nothing else. The planted mistake takes the columns for the neurons."""
    x = K.Input((2, 4, 3))
    conv = L.Conv2D(channels, 1, data_format="channels_first", use_bias=False)
    act = L.ReLU(name="act")(Passing()(conv(x)))
    model = K.Model(x, L.Dense(1, kernel_initializer="zeros")(L.Flatten()(act)))
    conv.set_weights([np.broadcast_to([-1.0] + [1.0] * (channels - 1), (1, 1, 2, channels))])
    model.compile("sgd", "mse")
    found = diagnose(model, (np.ones((8, 2, 4, 3), "f"), np.ones((8, 1), "f"))).layers["act"]
    assert found.report.dead.tolist() == [True] + [False] * (channels - 1)
    assert found.report.blocked.tolist() == [False] + [True] * (channels - 1)
    assert found.rate_limit.tolist() == pytest.approx([1 - 0.05 ** (1 / 8)] + [1.0] * (channels - 1))
    assert found.cause.tolist() == ["unknown"] + ["outgoing"] * (channels - 1)
