"""Very wide layers and large samples, whose activations are summed one by one, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from relu_probe import ReluProbe
from relu_probe.counting.activation_sums import LARGE_SAMPLE, activation_sums

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
