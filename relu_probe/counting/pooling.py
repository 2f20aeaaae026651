"""What does the max pooling behind a ReLU tell of it? Where windows do not overlap, each hands its gradient to one position: so
that windows can be counted instead, of images four times fewer. Not where there are NaN: a window may drop them.
"""

import tensorflow as tf

from relu_probe.counting.kernels import Mask
from relu_probe.counting.passes import BackwardPass, ForwardPass, LayerCall


def by_windows(call: LayerCall) -> Mask | None:
    """Where a gradient arrives at a ReLU, window by window; None unless all of it comes from such a pooling."""
    forward, *backward = call
    if not (isinstance(forward, ForwardPass) and len(backward) == 1 and isinstance(backward[0], BackwardPass)):
        return None
    grad = _origin(backward[0].gradient).op
    plain = forward.relu.ceiling is None and not backward[0].call
    if not plain or grad.type not in ("MaxPoolGrad", "MaxPool3DGrad") or _overlap(grad):
        return None
    before, pooled, gradient = grad.inputs
    if _origin(before) is not _origin(forward.output):
        return None
    return [tf.cast(gradient, tf.bool) & tf.cast(pooled, tf.bool)]


def _overlap(grad: tf.Operation) -> bool:
    return any(size > stride for size, stride in zip(grad.get_attr("ksize"), grad.get_attr("strides")))


def _origin(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type in ("Identity", "IdentityN"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor
