"""What does the max pooling behind a ReLU tell of it? Where windows do not overlap, each hands its gradient to one position: so
that windows can be counted instead, of images four times fewer. Not where there are NaN: a window may drop them.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from relu_probe.calls import Backward, Call, Forward
from relu_probe.kernels import Mask


class Windows(NamedTuple):
    """Where a gradient arrives at a ReLU."""

    flows: Mask  # window by window
    exact: Callable[[], Mask]  # position by position


def by_windows(call: Call) -> Windows | None:
    """None unless all of its gradient comes from such a pooling."""
    forward, *backward = call
    if not (isinstance(forward, Forward) and len(backward) == 1 and isinstance(backward[0], Backward)):
        return None
    grad = _origin(backward[0].gradient).op
    plain = forward.relu.ceiling is None and not backward[0].call
    if not plain or grad.type not in ("MaxPoolGrad", "MaxPool3DGrad") or _overlap(grad):
        return None
    before, pooled, gradient = grad.inputs
    if _origin(before) is not _origin(forward.output):
        return None
    flows = tf.cast(gradient, tf.bool) & tf.cast(pooled, tf.bool)
    return Windows([flows], lambda: [tf.cast(_again(grad), tf.bool), forward.output > 0])


def _overlap(grad: tf.Operation) -> bool:
    return any(size > stride for size, stride in zip(grad.get_attr("ksize"), grad.get_attr("strides")))


def _origin(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type in ("Identity", "IdentityN"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def _again(grad: tf.Operation) -> tf.Tensor:
    """The same once more: to keep what it gave until it is known that nobody needs it costs memory."""
    names = ["ksize", "strides", "padding", "data_format"] + ["explicit_paddings"] * (grad.type == "MaxPoolGrad")
    attributes = {name: grad.get_attr(name) for name in names}
    attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
    before, pooled, gradient = grad.inputs
    return getattr(tf.raw_ops, grad.type)(orig_input=before, orig_output=pooled, grad=gradient, **attributes)
