"""Counting of gradients by windows, for a ReLU before max pooling.

TensorFlow's 2D pooling passes the gradient of a window to one position of the ReLU, also where several have the maximum. So if
windows do not overlap, they can be counted instead of positions: four times fewer in most image models. This does not hold if there
are NaN, because a window may drop them; nor for 3D pooling: TensorFlow has two kernels for its gradient, one of which passes it to
every position that has the maximum.
"""

import tensorflow as tf

from relu_probe.counting.passes import LayerCall


def windows_of(call: LayerCall) -> LayerCall | None:
    """Returns a call made of the windows, whose gradients can be counted instead of those at the positions of the ReLU.

    None unless all gradients of the call come from one max pooling without overlap.
    """
    if len(call.gradients) != 1 or call.ceiling is not None or call.counted is not None or tf.executing_eagerly():
        return None
    arrives = call.gradients[0]
    if arrives.op.type == "ReluGrad":
        arrives = arrives.op.inputs[0]
    pool_grad = _behind_identities(arrives).op
    if pool_grad.type != "MaxPoolGrad" or _mixes_neurons(pool_grad) or _overlap(pool_grad):
        return None
    before, pooled, gradient = pool_grad.inputs
    if _behind_identities(before) is not _behind_identities(call.output):
        return None
    return LayerCall(pooled, None, (gradient,))


def _mixes_neurons(pool_grad: tf.Operation) -> bool:
    """Whether a window extends over the last axis, the neurons: that of a pooling in another data format than the ReLU's."""
    return bool(pool_grad.get_attr("ksize")[-1] > 1)


def _overlap(pool_grad: tf.Operation) -> bool:
    return any(size > stride for size, stride in zip(pool_grad.get_attr("ksize"), pool_grad.get_attr("strides")))


def _behind_identities(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type in ("Identity", "IdentityN"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor
