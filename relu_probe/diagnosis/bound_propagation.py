"""Propagation of bounds from a model's inputs to its ReLUs, along the trace of a step.

A functional or Sequential model calls the same layers for every input, so that one step shows them all.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.bounded_layers import Unbounded, bounds_after, is_plain_relu
from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.diagnosis.interval_arithmetic import Arithmetic, Box, through_relu
from relu_probe.report.layer_report import Floats, Mask
from relu_probe.structure.keras_layers import output_activation
from relu_probe.structure.relu_function import relu_ceiling, relu_threshold
from relu_probe.structure.relu_layers import ReluLayer

_DTYPES = (tf.float32, tf.float64)


class Certificate(NamedTuple):
    """What the bounds prove about one ReLU layer.

    Args:
        certified: `(neurons,)` bool, no input in the box makes the neuron fire in inference mode; None without a box.
        stopped_at: the layer through which the bounds could not be carried, "" if there is none.
    """

    certified: Mask | None
    stopped_at: str = ""


class Certifier:
    """Certifies neurons that cannot fire for any input within the bounds.

    Args:
        trace: the trace of a step.
        boxes: the bounds of each input of the model; None for an input without.
    """

    def __init__(self, trace: CallTrace, boxes: list[Box | None]) -> None:
        self.trace = trace
        # The bounds of each tensor, or the name of the layer at which those before it stopped.
        self._bounds: dict[int, Box | str] = {id(x): box for x, box in zip(trace.inputs, boxes) if box is not None}
        self._highest: dict[int, Floats | str] = {}  # the upper bounds of pre-activations, by id of the call's output
        last = {id(tensor): i for i, call in enumerate(trace.calls) for tensor in call.inputs}
        for i, call in enumerate(trace.calls):
            self._carry(call)
            for key in {id(tensor) for tensor in call.inputs}:
                if last[key] == i:  # the bounds of all tensors of a large model would take much memory
                    self._bounds.pop(key, None)

    def certify(self, relu: ReluLayer, neurons: int) -> Certificate:
        """The certificate of one layer. That a neuron is not certified proves nothing: it may still be unable to fire."""
        fires = np.zeros(neurons, bool)
        calls = self.trace.calls_of(relu.layer)
        for call in calls:
            high = self._highest[id(call.output)]
            if isinstance(high, str):
                return Certificate(np.zeros(neurons, bool), high)
            high = np.moveaxis(high, relu.axis % (high.ndim + 1) - 1, -1)
            if high.shape[-1] != neurons:  # the operations of the step have shown another axis
                return Certificate(np.zeros(neurons, bool), relu.key)
            fires |= np.any(high > relu.threshold, axis=tuple(range(high.ndim - 1)))
        return Certificate(~fires & bool(calls))

    def _carry(self, call: TracedCall) -> None:
        """Carries the bounds of the inputs of a call to its output."""
        before = [self._bounds.get(id(tensor), call.layer.name) for tensor in call.inputs]
        stopped = [bounds for bounds in before if isinstance(bounds, str)]
        found: Box | str = stopped[0] if stopped else self._after(call, before)
        function = output_activation(call.layer)
        if function is not None:
            self._highest[id(call.output)] = found if isinstance(found, str) else found.high
        if not isinstance(found, str) and is_plain_relu(function):
            found = through_relu(found, relu_threshold(function), relu_ceiling(function))
        self._bounds.setdefault(id(call.output), found)

    def _after(self, call: TracedCall, boxes: list[Box]) -> Box | str:
        """Bounds of the values to which the layer of the call applies its activation, or where they stop."""
        if not call.visible:
            return str(call.layer.name)
        if call.output.dtype not in _DTYPES:  # in half precision the rounding of sums differs between devices
            return f"{call.output.dtype.name} arithmetic"
        try:
            return bounds_after(call.layer, boxes, _arithmetic(call))
        except Unbounded as stop:
            return str(stop)


def _arithmetic(call: TracedCall) -> Arithmetic:
    """The arithmetic of a call. TensorFloat-32, which a GPU may use for float32, keeps 10 bits of a factor."""
    dtype = call.output.dtype.as_numpy_dtype
    short = dtype == np.float32 and tf.config.experimental.tensor_float_32_execution_enabled()
    if short and tf.config.list_physical_devices("GPU"):
        return Arithmetic.of(dtype, unit=2.0**-9)
    return Arithmetic.of(dtype)
