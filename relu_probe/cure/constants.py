"""Constants that removed units leave behind: what takes them in, and how much they add."""

from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.diagnosis.pre_activation import BATCH_NORM, has_linear_output
from relu_probe.report.layer_report import Floats
from relu_probe.structure.keras_layers import keras_class
from relu_probe.structure.weight_layout import depthwise_kernel

_TAKES_CONSTANTS = ("Dense", "Conv1D", "Conv2D", "Conv3D", "SeparableConv1D", "SeparableConv2D")


class Unfoldable(Exception):
    """A layer cannot take a constant into its bias. The argument says why, as a clause."""


def fold_target(trace: CallTrace, call: TracedCall) -> tuple[Any, int]:
    """The variable that takes in a constant input of a linear layer, and the sign with which it does.

    It is the bias, or without one the moving mean of a BatchNormalization that alone receives the output.

    Raises:
        Unfoldable: there is none.
    """
    layer = call.layer
    if keras_class(layer) not in _TAKES_CONSTANTS:
        raise Unfoldable("its output is not the same at all places")
    if pads(layer):
        raise Unfoldable("it pads its input with zeros")
    if layer.use_bias:
        return layer.bias, 1
    following = trace.consumers(call.output)
    norm: Any = following[0].layer if len(following) == 1 and trace.output_index(call.output) is None else None
    if keras_class(norm) != BATCH_NORM or not has_linear_output(layer) or len(trace.calls_of(norm)) != 1:
        raise Unfoldable("it has no bias")
    axes = [axis % call.output.shape.rank for axis in tf.nest.flatten(norm.axis)]
    first = getattr(layer, "data_format", None) == "channels_first"
    if axes != [1 if first else call.output.shape.rank - 1]:
        raise Unfoldable("it has no bias")
    return norm.moving_mean, -1


def pads(layer: Any) -> bool:
    """Whether the layer pads its input with zeros; a convolution of single places never does."""
    return getattr(layer, "padding", "valid") != "valid" and any(size > 1 for size in layer.kernel_size)


def response(layer: Any, value: Floats) -> Floats:
    """`(units,)`: what a linear layer adds to each of its units for an input `(inputs,)` that is the same at all places."""
    if keras_class(layer).startswith("Separable"):
        deep = np.asarray(depthwise_kernel(layer), np.float64)
        sums = deep.sum(axis=tuple(range(deep.ndim - 2)))
        value, kernel = (value[:, None] * sums).reshape(-1), layer.pointwise_kernel
    else:
        kernel = layer.kernel
    kernel = np.asarray(kernel, np.float64)
    return np.asarray(value @ kernel.sum(axis=tuple(range(kernel.ndim - 2))))
