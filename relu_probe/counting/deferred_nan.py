"""Deferred NaN detection: a cheap scalar test at every step, and the neurons only if the test fires."""

import numpy as np
import tensorflow as tf

from relu_probe.counting.kernels import on_gpu
from relu_probe.counting.passes import LayerCall

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


def nan_test(call: LayerCall, of_output: tf.Tensor | None = None) -> tf.Tensor | None:
    """The test of a call; None if a choice would cost more than the mask.

    Args:
        call: one call of a layer, whose forward pass is counted.
        of_output: `may_have_nan` of its output, if that is known already.
    """
    if on_gpu():  # a choice would have to wait for a value on its way to the host
        return None
    if call.source is not call.output:
        return tf.reduce_any(tf.math.is_nan(call.source))
    return may_have_nan(call.output) if of_output is None else of_output
