"""Eager passes over the data in inference mode: predictions, what fired, and the inputs of a layer's neurons."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from relu_probe.diagnosis.call_trace import CallTrace, recorded, reduce_per_neuron
from relu_probe.diagnosis.causes import Causes, causes_of_death
from relu_probe.diagnosis.pre_activation import Float64Copies, pre_activation_of
from relu_probe.measuring.data import BatchedData
from relu_probe.measuring.inference import call_in_inference, state_restored
from relu_probe.report.layer_report import Floats, Mask
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.utils.error_policy import reason

Predictions = list[NDArray[Any]]


def predictions(model: Any, data: BatchedData) -> Predictions:
    """The model's outputs, batch by batch, each output by itself."""
    with state_restored(model):
        return [output for batch in data.dataset for output in _outputs(model, batch)]


def largest_change(before: Predictions, after: Predictions) -> float:
    """The largest absolute difference; 0 only if all predictions are equal, `==`, with NaN equal to NaN."""
    if all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(before, after)):
        return 0.0
    changes = [np.abs(a.astype(np.float64) - b.astype(np.float64)) for a, b in zip(before, after)]
    return float(max(np.max(change, initial=0) for change in changes))


class NoSignals(Exception):
    """The signals of a layer cannot be computed. The argument says why, as the end of a sentence about a neuron."""


@dataclass
class FirstPass:
    """What a pass over the data before any change shows.

    Args:
        predictions: the model's outputs.
        trace: of the last batch.
        fired: key of the layer -> `(neurons,)` bool, whether the neuron fired in this pass, which runs eagerly: a value close
            to zero may have another sign than in a compiled step.
    """

    predictions: Predictions
    trace: CallTrace
    fired: dict[str, Mask]

    @classmethod
    def over(cls, model: Any, data: BatchedData, relus: list[ReluLayer]) -> "FirstPass":
        """Makes the pass."""
        found = cls([], CallTrace(), {})
        for found.trace, outputs in _traced(model, data):
            found.predictions += outputs
            for relu in relus:
                for call in found.trace.calls_of(relu.layer):
                    fired = reduce_per_neuron(np.any, np.asarray(call.output) > 0, relu.axis)
                    found.fired[relu.key] = fired | found.fired.get(relu.key, np.zeros_like(fired))
        return found


@dataclass(frozen=True)
class Signals:
    """What reaches some neurons of a ReLU layer: z = scale * (product + bias) + shift.

    Args:
        product: `(positions, neurons)`, w.x in float64.
        bias, scale, shift: `(neurons,)`; scale and shift are BatchNormalization's in inference, and the ReLU's threshold.
        receives_input: `(neurons,)` bool, some input that is not zero meets a weight that is not zero.
        any_input: some input of the layer is not zero.
    """

    product: Floats
    bias: Floats
    scale: Floats
    shift: Floats
    receives_input: Mask
    any_input: bool

    @property
    def z(self) -> Floats:
        """`(positions, neurons)`; the neuron fires where it is positive."""
        return np.asarray(self.scale * (self.product + self.bias) + self.shift)

    @property
    def fires(self) -> Mask:
        """`(neurons,)` bool, whether the neuron fires anywhere."""
        return np.asarray(np.any(self.z > 0, axis=0))

    @property
    def causes(self) -> Causes:
        """`(neurons,)`: why each neuron is dead, provided that it is."""
        return causes_of_death(self.receives_input, np.max(self.scale * self.product, axis=0))


def read_signals(model: Any, data: BatchedData, relu: ReluLayer, neurons: NDArray[Any]) -> Signals:
    """The signals of the given neurons of a layer, whose pre-activation the trace shows.

    Raises:
        NoSignals: they cannot be computed in float64.
    """
    copies, parts, receives, any_input = Float64Copies(), [], np.zeros(len(neurons), bool), False
    for trace, _ in _traced(model, data):
        for call in trace.calls_of(relu.layer):
            found: Any = pre_activation_of(trace, call, relu)
            try:
                product, _, reached = replace(found, scale=1.0, shift=0.0).evaluate(copies)
            except Exception as error:
                raise NoSignals(f"its pre-activation cannot be computed in float64: {reason(error)}") from error
            parts.append(np.moveaxis(product, relu.axis, -1).reshape(-1, product.shape[relu.axis])[:, neurons])
            receives |= reduce_per_neuron(np.any, reached, relu.axis)[neurons]
            any_input = any_input or bool(tf.reduce_any(found.x != 0))
    bias = getattr(found.linear, "bias", None)
    each = (0.0 if bias is None else bias, found.scale, found.shift)
    bias, scale, shift = (_per_neuron(value, product.shape[relu.axis])[neurons] for value in each)
    return Signals(np.concatenate(parts), bias, scale, shift, receives, any_input)


def _per_neuron(value: Any, neurons: int) -> Floats:
    return np.broadcast_to(np.asarray(tf.convert_to_tensor(value), np.float64).reshape(-1), neurons)


def _traced(model: Any, data: BatchedData) -> Iterator[tuple[CallTrace, Predictions]]:
    with state_restored(model):
        for batch in data.dataset:
            with recorded(model) as trace:
                outputs = _outputs(model, batch)
            yield trace, outputs


def _outputs(model: Any, batch: Any) -> Predictions:
    return [np.asarray(output) for output in tf.nest.flatten(call_in_inference(model, batch[0]))]
