"""Propagation of bounds from a model's inputs to its ReLUs, along the trace of a step.

A functional or Sequential model calls the same layers for every input, so that one step shows them all.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.diagnosis.interval_arithmetic import (
    Arithmetic,
    Box,
    through_affine,
    through_relu,
)
from relu_probe.diagnosis.pre_activation import IDENTITY, has_linear_output
from relu_probe.report.layer_report import Mask
from relu_probe.structure.keras_layers import keras_class, output_activation
from relu_probe.structure.relu_function import relu_ceiling, relu_threshold
from relu_probe.structure.relu_layers import ReluLayer

_RELUS = ("ReLU", "Relu", "Relu6")  # the last two are operations of a functional graph
_DTYPES = (tf.float32, tf.float64)


class Certificate(NamedTuple):
    """What the bounds prove about one ReLU layer.

    Args:
        certified: `(neurons,)` bool, no input in the box makes the neuron fire in inference mode; None without a box.
        stopped_at: the layer through which the bounds could not be carried, "" if there is none.
    """

    certified: Mask | None
    stopped_at: str = ""


class _Stopped(Exception):
    """The bounds cannot be carried through a layer, which the argument names."""


class Certifier:
    """Certifies neurons that cannot fire for any input within the bounds.

    Args:
        trace: the trace of a step.
        boxes: the bounds of each input of the model; None for an input without.
    """

    def __init__(self, trace: CallTrace, boxes: list[Box | None]) -> None:
        self.trace = trace
        self._boxes = {id(tensor): box for tensor, box in zip(trace.inputs, boxes) if box is not None}

    def certify(self, relu: ReluLayer, neurons: int) -> Certificate:
        """The certificate of one layer. That a neuron is not certified proves nothing: it may still be unable to fire."""
        calls = self.trace.calls_of(relu.layer)
        try:
            highs = [self._pre_activation(call).high for call in calls]
        except _Stopped as stop:
            return Certificate(np.zeros(neurons, bool), str(stop))
        fires = [np.any(high > relu.threshold, axis=tuple(range(high.ndim - 1))) for high in highs]
        return Certificate(~np.any(fires, axis=0) if fires else np.zeros(neurons, bool))

    def _pre_activation(self, call: TracedCall) -> Box:
        """Bounds of the values to which the layer of the call applies its activation."""
        name = keras_class(call.layer)
        if not call.visible or len(call.inputs) != 1 or not _is_known(call.layer):
            raise _Stopped(call.layer.name)
        if call.output.dtype not in _DTYPES:  # in half precision the rounding of sums differs between devices
            raise _Stopped(f"{call.output.dtype.name} arithmetic")
        box = self._box(call.inputs[0], call)
        if name != "Dense":
            return box
        bias = np.asarray(call.layer.bias) if call.layer.use_bias else None
        bounds = through_affine(box, np.asarray(call.layer.kernel), bias, _arithmetic(call))
        if bounds is None:
            raise _Stopped(call.layer.name)
        return bounds

    def _box(self, tensor: tf.Tensor, consumer: TracedCall) -> Box:
        """Bounds of a tensor that `consumer` receives."""
        if id(tensor) in self._boxes:
            return self._boxes[id(tensor)]
        if (call := self.trace.producer(tensor)) is None:
            raise _Stopped(consumer.layer.name)
        box = self._pre_activation(call)
        if keras_class(call.layer) == "Flatten":
            box = Box(*(bound.reshape(-1) for bound in box))
        elif _is_relu(call.layer):
            function = output_activation(call.layer)
            box = through_relu(box, relu_threshold(function), relu_ceiling(function))
        self._boxes[id(tensor)] = box
        return box


def _is_known(layer: Any) -> bool:
    """Whether the layer is Dense, Flatten, Dropout, or a ReLU whose function is known everywhere.

    Other functions are recognised as ReLUs by their values on a few points, which proves nothing about other points.
    """
    name = keras_class(layer)
    if name == "Flatten":
        return bool(layer.data_format == "channels_last")
    if name == "Dense":
        plain = not getattr(layer, "lora_enabled", False) and getattr(layer, "quantization_mode", None) is None
        return plain and (has_linear_output(layer) or _is_plain_relu(layer.activation))
    if name == "Activation":
        return has_linear_output(layer) or _is_plain_relu(layer.activation)
    if name == "ReLU":
        return not getattr(layer, "negative_slope", 0)
    return name in (*IDENTITY, *_RELUS)


def _is_relu(layer: Any) -> bool:
    """Whether a layer for which `_is_known` holds ends in a ReLU."""
    return keras_class(layer) in _RELUS or (
        keras_class(layer) in ("Dense", "Activation") and not has_linear_output(layer)
    )


def _is_plain_relu(function: Any) -> bool:
    known = [tf.keras.activations.relu, getattr(tf.keras.activations, "relu6", None), tf.nn.relu, tf.nn.relu6]
    return any(function is one for one in known) or (keras_class(function) == "ReLU" and not function.negative_slope)


def _arithmetic(call: TracedCall) -> Arithmetic:
    """The arithmetic of a Dense layer's call. TensorFloat-32, which a GPU may use for float32, keeps 10 bits of a factor."""
    dtype = call.output.dtype.as_numpy_dtype
    short = dtype == np.float32 and tf.config.experimental.tensor_float_32_execution_enabled()
    if short and tf.config.list_physical_devices("GPU"):
        return Arithmetic.of(dtype, unit=2.0**-9)
    return Arithmetic.of(dtype)
