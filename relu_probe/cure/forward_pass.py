"""Eager passes over the data in inference mode: predictions, what fired, and the inputs of a layer's neurons."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from relu_probe.cure.edit import value_of
from relu_probe.diagnosis.call_trace import CallTrace, recorded
from relu_probe.diagnosis.pre_activation import LinearCopies, pre_activation_of
from relu_probe.measuring.data import BatchedData
from relu_probe.measuring.inference import call_in_inference, state_restored
from relu_probe.report.layer_report import Floats, Mask
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.weight_layout import incoming_weights
from relu_probe.utils.error_policy import reason

Predictions = list[NDArray[Any]]
CAUSES = ("input", "zero weights", "bias", "weights")


def predictions(model: Any, data: BatchedData) -> Predictions:
    """The model's outputs, batch by batch, each output by itself."""
    with state_restored(model):
        return [output for batch in data.dataset for output in outputs_of(model, batch)]


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
                    active = np.moveaxis(np.asarray(relu.neurons_last(call.output)) > 0, relu.axis, -1)
                    fired = active.any(axis=tuple(range(active.ndim - 1)))
                    found.fired[relu.key] = fired | found.fired.get(relu.key, np.zeros_like(fired))
        return found


@dataclass(frozen=True)
class Signals:
    """What reaches some neurons of a ReLU layer: z = scale * (product + bias) + shift.

    Args:
        product: `(positions, neurons)`, w.x in float64.
        bias, scale, shift: `(neurons,)`; scale and shift are BatchNormalization's in inference, and the ReLU's threshold.
        has_weights: `(neurons,)` bool, some weight of the neuron is not zero.
        any_input: some input of the layer is not zero.
    """

    product: Floats
    bias: Floats
    scale: Floats
    shift: Floats
    has_weights: Mask
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
    def causes(self) -> NDArray[np.str_]:
        """`(neurons,)`: why each neuron is dead, provided that it is: as `diagnose` defines it."""
        product = self.scale * self.product
        no_input = ~np.any(self.product, axis=0) & (self.has_weights | (not self.any_input))
        return np.select([no_input, ~self.has_weights, np.any(product > 0, axis=0)], CAUSES[:3], CAUSES[3])


def read_signals(model: Any, data: BatchedData, relu: ReluLayer, neurons: NDArray[np.intp]) -> Signals:
    """The signals of the given neurons of a layer, whose pre-activation the trace shows.

    Raises:
        NoSignals: they cannot be computed in float64.
    """
    products, any_input, copies = [], False, LinearCopies()
    with closing(_traced(model, data)) as passes:  # the state is put back now, also after an error
        for trace, _ in passes:
            for call in trace.calls_of(relu.layer):
                found: Any = pre_activation_of(trace, call, relu)
                try:
                    product = np.asarray(relu.neurons_last(_product(copies, found.linear, found.x)))
                except Exception as error:
                    raise NoSignals(f"its pre-activation cannot be computed in float64: {reason(error)}") from error
                products.append(product.reshape(-1, product.shape[-1])[:, neurons])
                any_input = any_input or bool(tf.reduce_any(found.x != 0))
    kernel, unit = _known(incoming_weights(found.linear))
    used = np.unique(np.broadcast_to(unit, kernel.shape)[value_of(kernel) != 0])
    bias = getattr(found.linear, "bias", None)
    each = (0.0 if bias is None else bias, found.scale, found.shift)
    bias, scale, shift = (_per_neuron(value, product.shape[-1])[neurons] for value in each)
    return Signals(np.concatenate(products), bias, scale, shift, np.isin(neurons, used), any_input)


def _product(copies: LinearCopies, linear: Any, x: tf.Tensor) -> tf.Tensor:
    """w.x in float64, so that rounding does not decide its sign, with the channels on the last axis."""
    values = np.asarray(x).astype(np.float64)
    first = getattr(linear, "data_format", None) == "channels_first"
    last = tf.constant(np.moveaxis(values, 1, -1) if first else values)
    own, _ = copies.of(linear, last)
    return own(last)


def _known(found: Any) -> Any:
    assert found is not None  # the plan has looked at it
    return found


def _per_neuron(value: Any, neurons: int) -> Floats:
    return np.broadcast_to(np.asarray(tf.convert_to_tensor(value), np.float64).reshape(-1), neurons)


def _traced(model: Any, data: BatchedData) -> Generator[tuple[CallTrace, Predictions], None, None]:
    with state_restored(model):
        for batch in data.dataset:
            with recorded(model) as trace:
                outputs = outputs_of(model, batch)
            yield trace, outputs


def outputs_of(model: Any, batch: Any) -> Predictions:
    """The model's outputs for one batch of the data."""
    return [np.asarray(output) for output in tf.nest.flatten(call_in_inference(model, batch[0]))]
