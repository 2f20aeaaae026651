"""Evidence for the causes, collected batch by batch from the traces of a model's calls."""

from typing import Any

import numpy as np

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall, reduce_per_neuron
from relu_probe.diagnosis.causes import Evidence
from relu_probe.diagnosis.consumers import Consumers, consumers_of, reachable_outputs
from relu_probe.diagnosis.pre_activation import Float64Copies, PreActivation, pre_activation_of
from relu_probe.report.layer_report import Floats, Mask
from relu_probe.report.report import Report
from relu_probe.structure.relu_layers import ReluLayer

_TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


class EvidenceCollector:
    """Collects the evidence of one ReLU layer.

    Args:
        relu: the layer.
        neurons: the number of its neurons.
    """

    def __init__(self, relu: ReluLayer, neurons: int) -> None:
        self.relu = relu
        self.margin, self.largest_product = np.full(neurons, -np.inf), np.full(neurons, -np.inf)
        self.receives_input, self.below_ceiling = np.zeros(neurons, bool), np.zeros(neurons, bool)
        self.fired, self.samples = np.zeros(neurons, np.int64), 0
        self.offset_description, self.lowest_input, self.is_first_layer = "the bias", np.inf, True
        self._z_is_known = True

    def collect(self, trace: CallTrace, copies: Float64Copies) -> None:
        """Adds the evidence of one batch."""
        calls = trace.calls_of(self.relu.layer)
        if calls:
            self._count(calls, samples=int(trace.inputs[0].shape[0]) if trace.inputs else 0)
        for call in calls:
            z = pre_activation_of(trace, call, self.relu)
            self._z_is_known = self._z_is_known and z is not None and self._evaluate(z, call, copies)
            self.is_first_layer = self.is_first_layer and z is not None and _is_behind_no_weights(trace, z.x)

    def _count(self, calls: list[TracedCall], samples: int) -> None:
        fired = np.zeros((samples, len(self.fired)), bool)
        for call in calls:
            output, axis = np.asarray(call.output), self.relu.axis
            active = np.moveaxis(output > 0, axis, -1)
            below = (output > 0) if self.relu.ceiling is None else (output > 0) & (output != self.relu.ceiling)
            self.below_ceiling |= reduce_per_neuron(np.any, below, axis)
            places = tuple(range(1, active.ndim - 1))
            # If the samples were folded into another axis, any of them may have fired: a higher limit.
            fired |= active.any(axis=places) if len(output) == samples else active.any(axis=(0, *places))
        self.fired += fired.sum(axis=0)
        self.samples += samples

    def _evaluate(self, pre_activation: PreActivation, call: TracedCall, copies: Float64Copies) -> bool:
        """Whether z could be computed and agrees with the layer's own output; if so, adds its evidence."""
        try:
            product, z, receives_input = pre_activation.evaluate(copies)
        except Exception:  # the copy cannot have an option of the layer, or an operation has no float64 kernel
            return False
        if z.shape != call.output.shape or not _agrees(z, call.output):
            return False
        axis = self.relu.axis
        self.margin = np.maximum(self.margin, reduce_per_neuron(np.max, z, axis))
        self.largest_product = np.maximum(self.largest_product, reduce_per_neuron(np.max, product, axis))
        self.receives_input |= reduce_per_neuron(np.any, receives_input, axis)
        self.lowest_input = min(self.lowest_input, float(np.min(pre_activation.x, initial=np.inf)))
        self.offset_description = pre_activation.offset_description
        return True

    def evidence(
        self, trace: CallTrace, relus: list[ReluLayer], report: Report, loss: "LossGradientCollector | None"
    ) -> Evidence:
        """The evidence of all batches.

        Args:
            trace: the trace of the last batch.
            relus: all counted ReLU layers.
            report: the counts of all layers.
            loss: the gradients of the loss, None if none were computed.
        """
        layer = report[self.relu.key]
        # A margin of -inf is one that no batch has shown; next to a NaN it may be the true value.
        seen = np.all(self.margin > -np.inf) or np.any(np.isnan(self.margin))
        z_is_known = self._z_is_known and layer.measured and bool(seen)
        consumers, unknown = consumers_of(trace, self.relu, relus), np.full(layer.neurons, np.nan)
        no_loss_gradient = None
        if loss is not None:
            no_loss_gradient = loss.missing(consumers, reachable_outputs(trace, self.relu), layer.neurons)
        # z of a dead neuron is at most 0 as the model computes it; float64 may give a value just above 0.
        margin = np.where(layer.dead, np.minimum(self.margin, 0.0), self.margin)
        return Evidence(
            margin=margin if z_is_known else unknown,
            largest_product=self.largest_product if z_is_known else unknown,
            receives_input=self.receives_input if z_is_known else None,
            below_ceiling=self.below_ceiling,
            no_loss_gradient=no_loss_gradient,
            no_outgoing=_no_outgoing(consumers),
            no_downstream=_no_downstream(consumers, report),
            fired=self.fired,
            samples=self.samples,
        )


class LossGradientCollector:
    """Collects, over all batches, which channels of the model's outputs received a gradient of the loss."""

    def __init__(self) -> None:
        self._received: dict[int, Mask] = {}  # index of the output -> (channels,)

    def collect(self, trace: CallTrace) -> None:
        """Adds the gradients of one batch."""
        for index, gradient in trace.loss_gradients.items():
            received = reduce_per_neuron(np.any, np.asarray(gradient) != 0, -1)
            self._received[index] = received | self._received.get(index, np.zeros_like(received))

    def missing(self, consumers: Consumers | None, outputs: set[int] | None, neurons: int) -> Mask:
        """`(neurons,)` bool: no gradient left the loss for the outputs that depend on the neuron.

        Args:
            consumers: the consumers of the ReLU layer, None if unknown.
            outputs: the indices of the model's outputs that depend on the layer, None if unknown.
            neurons: the number of its neurons.
        """
        if not any(np.any(self._received.get(i, False)) for i in (self._received if outputs is None else outputs)):
            return np.ones(neurons, bool)
        if consumers is None or consumers.connections or not consumers.outputs:
            return np.zeros(neurons, bool)
        # The neurons are the channels of outputs and nothing else: each output tells them apart.
        received = [self._received.get(index, np.zeros(neurons, bool)) for index in consumers.outputs]
        return ~np.any(received, axis=0) if all(len(one) == neurons for one in received) else np.zeros(neurons, bool)


def _no_outgoing(consumers: Consumers | None) -> Mask | None:
    if consumers is None or consumers.outputs:
        return None
    return ~np.any([connection.connected.any(axis=1) for connection in consumers.connections], axis=0)


def _no_downstream(consumers: Consumers | None, report: Report) -> Mask | None:
    """`(neurons,)` bool: all units that a weight other than zero leads to are dead or blocked."""
    if consumers is None or consumers.outputs:
        return None
    passes = []
    for connection in consumers.connections:
        connected, relu = connection.connected, connection.relu
        zero_gradient = None if relu is None else report[relu].zero_gradient
        learns = np.ones(connected.shape[1], bool) if zero_gradient is None else ~zero_gradient
        passes.append((connected & learns).any(axis=1))
    return ~np.any(passes, axis=0)


def _agrees(z: Floats, output: Any) -> bool:
    """Whether the layer is active if z > 0, and only then, up to rounding: then nothing about it was overlooked."""
    tolerance = _TOLERANCE.get(output.dtype.name, 0.05) * (1 + np.max(np.abs(z), initial=0, where=np.isfinite(z)))
    active = np.asarray(output) > 0
    return bool(np.all(active[z > tolerance]) and not np.any(active[z < -tolerance]))


def _is_behind_no_weights(trace: CallTrace, tensor: Any) -> bool:
    """Whether no layer with trainable weights stands between the model's inputs and the tensor."""
    todo = [tensor]
    while todo:
        current = todo.pop()
        if not any(current is given for given in trace.inputs):
            call = trace.producer(current)
            if call is None or getattr(call.layer, "trainable_weights", []):
                return False
            todo += call.inputs
    return True
