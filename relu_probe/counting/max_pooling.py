"""Counting of gradients by windows, for a ReLU before max pooling.

If windows do not overlap, each passes its gradient to one position of the ReLU. So windows can be counted instead of positions:
four times fewer in most image models. This does not hold if there are NaN, because a window may drop them.
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
    if pool_grad.type not in ("MaxPoolGrad", "MaxPool3DGrad") or _overlap(pool_grad):
        return None
    before, pooled, gradient = pool_grad.inputs
    if _behind_identities(before) is not _behind_identities(call.output):
        return None
    return LayerCall(pooled, None, (gradient,))


def _overlap(pool_grad: tf.Operation) -> bool:
    return any(size > stride for size, stride in zip(pool_grad.get_attr("ksize"), pool_grad.get_attr("strides")))


def _behind_identities(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type in ("Identity", "IdentityN"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor
