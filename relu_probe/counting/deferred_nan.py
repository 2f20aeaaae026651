"""NaN detection: by the largest value of each neuron, or deferred.

Deferred detection is a cheap scalar test at every step; the mask of the neurons is computed only if the test is True. It is faster for
large layers, but adds twice as many operations.
"""

import numpy as np
import tensorflow as tf

from relu_probe.counting.kernels import WIDE, concat, on_gpu
from relu_probe.counting.passes import LayerCall
from relu_probe.counting.shared_constants import axes_of, shared_constant

_BITS = {tf.float16: tf.uint16, tf.bfloat16: tf.uint16, tf.float32: tf.uint32, tf.float64: tf.uint64}


def may_have_nan(values: tf.Tensor) -> tf.Tensor:
    """Returns a scalar bool; False proves that there is no NaN.

    Read as unsigned integers, the bits of NaN and of negative numbers are larger than those of infinity. A ReLU returns no
    negative number, so the largest bits tell whether there is a NaN. A maximum of integers, unlike one of floats, has no special
    rules for NaN, infinity or an empty batch.
    """
    bits = _BITS[values.dtype]
    infinity = np.array(np.inf, values.dtype.as_numpy_dtype).view(bits.as_numpy_dtype)
    largest = tf.reduce_max(tf.bitcast(values, bits), axes_of(values))
    return largest > shared_constant(int(infinity), bits, values)


def nan_mask(values: tf.Tensor, axis: int) -> tf.Tensor:
    """Returns `(neurons,)` bool: whether there is a NaN among the values of each neuron."""
    return tf.reduce_any(tf.math.is_nan(values), axes_of(values, without=axis))


def largest_or_nan(values: tf.Tensor, axis: int) -> tf.Tensor:
    """Returns `(neurons,)`: NaN for a neuron that has a NaN among its values, else its largest value (-inf in an empty batch)."""
    return tf.reduce_max(values, axes_of(values, without=axis))


def joint_nan_mask(found: list[tf.Tensor]) -> tf.Tensor:
    """Returns one mask for several layers, from the mask of each, or from what `largest_or_nan` returned for it."""
    if len({each.dtype for each in found}) > 1:
        found = [tf.math.is_nan(each) if each.dtype.is_floating else each for each in found]
    joint = concat(found)
    return tf.math.is_nan(joint) if joint.dtype.is_floating else joint


def nan_test(call: LayerCall, xla: bool | None, of_output: tf.Tensor | None = None) -> tf.Tensor | None:
    """Returns the NaN test of a call; None if branching on the test would harm, or would cost more than the mask.

    XLA writes the operands of a branch to memory and then no longer fuses their computation with what reads them, which changes the
    last bits of a training.

    Args:
        call: one call of a layer, whose forward pass is counted.
        xla: whether XLA compiles the counting, None if that is not known.
        of_output: `may_have_nan` of the output, if it was already computed.
    """
    source = call.source
    assert source is not None, "its forward pass is counted"
    few = source.shape.rank == 2 and source.shape[1] < WIDE
    if few or xla or on_gpu():  # on a GPU a branch would have to wait until the value is copied to the host
        return None
    if source is not call.output:
        return tf.reduce_any(tf.math.is_nan(source))
    return may_have_nan(call.output) if of_output is None else of_output
