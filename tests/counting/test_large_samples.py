"""Very wide layers and large samples, whose activations are summed one by one, and steps that Keras runs together."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from harm import assert_no_harm, fitted

from relu_probe import ReluProbe
from relu_probe.counting.large_samples import LARGE_SAMPLE, activation_sums

K, L = tf.keras, tf.keras.layers


@pytest.mark.parametrize("xla", [None, False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((5, LARGE_SAMPLE), -1), ((3, 200, 200, 2), -1), ((3, 2, 200, 200), 1), ((0, LARGE_SAMPLE), -1), ((7, 3), -1)],
)
def test_sums_of_large_samples(shape, axis, xla):
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    spec = tf.TensorSpec((None, *shape[1:]), tf.float32)
    function = tf.function(
        lambda v: activation_sums(v, axis, loops=xla is False), input_signature=[spec], jit_compile=xla is not False
    )
    others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    expected = values.sum(axis=others, dtype=np.float64)
    np.testing.assert_allclose(function(values), expected, rtol=1e-12)
    if shape[0] == 3:
        assert not np.allclose(function(values), values[:2].sum(axis=others), rtol=1e-12)  # the planted mistake


def test_the_counts_of_a_very_wide_layer_are_those_of_the_epoch():
    model = K.Sequential([K.Input((2,)), L.Dense(LARGE_SAMPLE + 3, "relu"), L.Dense(1, kernel_initializer="zeros")])
    model.compile(K.optimizers.SGD(0.0), "mse")
    x = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    probe = ReluProbe(strict=True, activation_sum=True)
    model.fit(x, np.ones((5, 1)), epochs=2, batch_size=2, verbose=0, callbacks=[probe])
    (layer,) = probe.report.values()
    np.testing.assert_array_equal(layer.active, (model.layers[0](x).numpy() > 0).sum(0))
    assert layer.samples == 5
    assert not layer.with_gradient.any()


def wide():
    return K.Input((3,)), [L.Dense(LARGE_SAMPLE + 1, "relu"), L.Dense(5, "relu")]


def large_images():
    """More than `FEW_LAYERS` layers, which are counted in function calls."""
    return K.Input((40, 40, 3)), [*(L.Conv2D(12, 3, padding="same", activation="relu") for _ in range(10)), L.Flatten()]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # of Keras 3.3, which expects a multiple of the steps
@pytest.mark.parametrize("activation_sum", [False, True])
@pytest.mark.parametrize("layers", [wide, large_images])
def test_steps_that_are_run_together_do_not_change_the_last_one(layers, activation_sum):
    """Where Keras unrolls the steps, the end of the data ends the graph, and loops of ours would still run in the last step."""
    probe = ReluProbe(strict=True, activation_sum=activation_sum)

    def train(callbacks):
        K.utils.set_random_seed(3)
        inputs, hidden = layers()
        model = K.Sequential([inputs, *hidden, L.Dense(1)])
        model.compile(K.optimizers.Adam(0.01), "mse", steps_per_execution=2)
        x = np.random.default_rng(0).standard_normal((11, *inputs.shape[1:])).astype("float32")
        return fitted(model, callbacks, x, np.ones((11, 1)), batch_size=4, shuffle=False)

    assert_no_harm(train, [probe])
    assert {layer.samples for layer in probe.report.values()} == {11}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_recurrent_layers_in_steps_that_are_run_together():
    """Their loops cannot do without one for the counting: where Keras unrolls the steps they are not counted."""
    probe = ReluProbe(verbose=0)

    def train(callbacks):
        K.utils.set_random_seed(3)
        model = K.Sequential(
            [
                K.Input((6, 3)),
                L.SimpleRNN(8, activation="relu", name="rnn"),
                L.Dense(4, "relu", name="hidden"),
                L.Dense(1),
            ]
        )
        model.compile(K.optimizers.Adam(0.01), "mse", steps_per_execution=2)
        x = np.random.default_rng(0).standard_normal((11, 6, 3)).astype("float32")
        return fitted(model, callbacks, x, np.ones((11, 1)), batch_size=4, shuffle=False)

    with warnings.catch_warnings(record=True):
        assert_no_harm(train, [probe])
    assert probe.report["hidden"].samples == 11
    if getattr(K, "__version__", "").startswith("3.3."):
        assert "use a newer Keras, or steps_per_execution=1" in probe.report.unseen["rnn"]
    else:
        assert probe.report["rnn/relu"].samples == 11


class InPython(L.Layer):
    """Its gradient has no known shape."""

    def call(self, z):
        return tf.ensure_shape(tf.py_function(lambda t: t * 2, [z], tf.float32), z.shape)

    def compute_output_shape(self, shape):
        return shape


def test_a_gradient_without_a_known_shape():
    inputs = K.Input((3,))
    hidden = L.ReLU(max_value=3.0, name="bounded")(L.Dense(LARGE_SAMPLE)(inputs))
    model = K.Model(inputs, L.Dense(1)(InPython()(hidden)))
    model.compile(K.optimizers.SGD(0.0), "mse")
    x = np.random.default_rng(0).standard_normal((5, 3)).astype("float32")
    probe = ReluProbe(strict=True)
    model.fit(x, np.ones((5, 1)), batch_size=2, verbose=0, callbacks=[probe])
    z = model.layers[1](x).numpy()
    np.testing.assert_array_equal(probe.report["bounded"].active, (z > 0).sum(0))
    np.testing.assert_array_equal(probe.report["bounded"].with_gradient, ((z > 0) & (z < 3)).sum(0))
