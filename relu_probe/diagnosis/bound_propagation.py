"""Which neurons cannot fire, whatever comes in? Bounds carried through the layers that a batch went through.

A functional or Sequential model calls the same layers for every input, so that one batch shows them all.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.diagnosis.interval_arithmetic import (
    Arithmetic,
    Box,
    as_evaluated,
    read_box,
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
    """`certified (neurons,)`: no input in the box makes the neuron fire, in inference mode; None without a box.

    `stopped_at` is the layer through which the bounds could not be carried, "" where they could.
    """

    certified: Mask | None
    stopped_at: str = ""


class _Stopped(Exception):
    """The bounds cannot be carried any further; the argument names the layer."""


class Certifier:
    """Carries `bounds` through what one batch went through.

    Raises:
        ValueError: the bounds are not finite, low > high, or of another shape than the model's input.
    """

    def __init__(self, flow: CallTrace, bounds: Any) -> None:
        self.flow = flow
        boxes = [(t, read_box(bounds, tuple(t.shape[1:]))) for t in flow.inputs]
        self._boxes = {id(t): as_evaluated(box, t.dtype.as_numpy_dtype) for t, box in boxes if t.dtype in _DTYPES}

    def certify(self, relu: ReluLayer, neurons: int) -> Certificate:
        """Not certified is what is not proved; the converse is never claimed."""
        calls = self.flow.of(relu.layer)
        try:
            highs = [self._before(call).high for call in calls]
        except _Stopped as stop:
            return Certificate(np.zeros(neurons, bool), str(stop))
        fires = [np.any(high > relu.threshold, axis=tuple(range(high.ndim - 1))) for high in highs]
        return Certificate(~np.any(fires, axis=0) if fires else np.zeros(neurons, bool))

    def _before(self, call: TracedCall) -> Box:
        """Bounds of what the activation of the call's layer is applied to."""
        name = keras_class(call.layer)
        if not call.visible or len(call.inputs) != 1 or not _is_known(call.layer):
            raise _Stopped(call.layer.name)
        box = self._box(call.inputs[0], call)
        if name != "Dense":
            return box
        bounds = through_affine(box, np.asarray(call.layer.kernel), _bias(call.layer), _arithmetic(call))
        if bounds is None:
            raise _Stopped(call.layer.name)
        return bounds

    def _box(self, tensor: tf.Tensor, consumer: TracedCall) -> Box:
        if id(tensor) in self._boxes:
            return self._boxes[id(tensor)]
        if (call := self.flow.producer(tensor)) is None:
            raise _Stopped(consumer.layer.name)
        box = self._before(call)
        if keras_class(call.layer) == "Flatten":
            box = Box(*(bound.reshape(-1) for bound in box))
        elif _is_relu(call.layer):
            function = output_activation(call.layer)
            box = through_relu(box, relu_threshold(function), relu_ceiling(function))
        self._boxes[id(tensor)] = box
        return box


def _is_known(layer: Any) -> bool:
    """Dense, Flatten, Dropout, and ReLUs whose every value is known, not only those on the points that tell a ReLU."""
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
    """Of a known layer."""
    return keras_class(layer) in _RELUS or (
        keras_class(layer) in ("Dense", "Activation") and not has_linear_output(layer)
    )


def _is_plain_relu(function: Any) -> bool:
    known = [tf.keras.activations.relu, getattr(tf.keras.activations, "relu6", None), tf.nn.relu, tf.nn.relu6]
    return any(function is one for one in known) or (keras_class(function) == "ReLU" and not function.negative_slope)


def _arithmetic(call: TracedCall) -> Arithmetic:
    """TensorFloat-32, which a GPU may use for float32, keeps 10 bits of a factor."""
    dtype = _dtype(call.output)
    short = dtype == np.float32 and tf.config.experimental.tensor_float_32_execution_enabled()
    if short and tf.config.list_physical_devices("GPU"):
        return Arithmetic.of(dtype, unit=2.0**-9)
    return Arithmetic.of(dtype)


def _dtype(tensor: tf.Tensor) -> Any:
    """float32 or float64; in half precision sums are rounded in ways that differ between devices."""
    if tensor.dtype not in _DTYPES:
        raise _Stopped(f"{tensor.dtype.name} arithmetic")
    return tensor.dtype.as_numpy_dtype


def _bias(layer: Any) -> Any:
    return np.asarray(layer.bias) if layer.use_bias else None
