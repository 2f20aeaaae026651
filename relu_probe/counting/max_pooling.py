"""Gradients behind max pooling: where windows do not overlap, each hands its gradient to one position of the ReLU.

So windows can be counted instead of positions, four times fewer in most models of images. Not if there are NaN: a window may
drop them.
"""

from collections.abc import Callable

import tensorflow as tf

from relu_probe.counting.passes import LayerCall


def windows_of(call: LayerCall) -> LayerCall | None:
    """The pooled call, whose gradients are counted in the place of the ReLU's; None unless all gradients come from such a pooling."""
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


def count_with_windows(
    call: LayerCall, windows: LayerCall, count: Callable[[LayerCall], tuple[tf.Tensor, tf.Tensor]]
) -> tuple[tf.Tensor, tf.Tensor]:
    """What `count(call)` gives, the counts and whether there may be NaN, with the gradients counted by windows if there are none."""
    neurons = call.output.shape[-1]
    active, may_have_nan = count(call._replace(gradients=()))
    with_gradient = tf.cond(may_have_nan, lambda: count(call)[0][neurons:], lambda: count(windows)[0][neurons:])
    return tf.concat([active[:neurons], with_gradient], 0), may_have_nan


def _overlap(pool_grad: tf.Operation) -> bool:
    return any(size > stride for size, stride in zip(pool_grad.get_attr("ksize"), pool_grad.get_attr("strides")))


def _behind_identities(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type in ("Identity", "IdentityN"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor
