"""The sums of activations of large samples, which are added one by one, against NumPy's float64."""

import numpy as np
import pytest
import tensorflow as tf

from relu_probe.counting.kernels import LARGE_SAMPLE, activation_sums


@pytest.mark.parametrize("xla", [None, False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((5, LARGE_SAMPLE), -1), ((3, 200, 200, 2), -1), ((3, 2, 200, 200), 1), ((0, LARGE_SAMPLE), -1), ((7, 3), -1)],
)
def test_sums_of_large_samples(shape, axis, xla):
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    spec = tf.TensorSpec((None, *shape[1:]), tf.float32)
    function = tf.function(
        lambda v: activation_sums(v, axis, xla), input_signature=[spec], jit_compile=xla is not False
    )
    others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    expected = values.sum(axis=others, dtype=np.float64)
    np.testing.assert_allclose(function(values), expected, rtol=1e-12)
    if shape[0] == 3:
        assert not np.allclose(function(values), values[:2].sum(axis=others), rtol=1e-12)  # the planted mistake
