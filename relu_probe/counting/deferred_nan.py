"""Deferred NaN detection: a cheap scalar test at every step, and the neurons only if the test fires."""

from typing import Any

import numpy as np
import tensorflow as tf

_BITS = {tf.float16: tf.uint16, tf.bfloat16: tf.uint16, tf.float32: tf.uint32, tf.float64: tf.uint64}


def may_have_nan(values: tf.Tensor) -> tf.Tensor:
    """Scalar bool; False proves that there is no NaN.

    A NaN is the float whose bits are larger than those of infinity, and so is every negative number. What a ReLU gives is not
    negative: the largest bits of its output tell. Integers have no NaN and no infinity of their own, not even for an empty batch.
    """
    bits = _BITS[values.dtype]
    infinity = np.array(np.inf, values.dtype.as_numpy_dtype).view(bits.as_numpy_dtype)
    return tf.reduce_max(tf.bitcast(values, bits)) > tf.constant(infinity, bits)


def nan_mask(values: tf.Tensor, axis: int) -> tf.Tensor:
    """`(neurons,)` bool: a NaN among the neuron's values."""
    others = [i for i in range(values.shape.rank) if i != axis % values.shape.rank]
    return tf.reduce_any(tf.math.is_nan(values), others)


def any_of(tests: list[Any]) -> tf.Tensor:
    """Whether any of the scalar tests fires."""
    return tests[0] if len(tests) == 1 else tf.reduce_any(tf.stack(tests))
