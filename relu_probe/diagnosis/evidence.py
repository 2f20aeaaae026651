"""What speaks for one cause or another? Gathered batch by batch from what flowed through a ReLU layer."""

from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall, over_neurons
from relu_probe.diagnosis.causes import Evidence
from relu_probe.diagnosis.consumers import Consumers, consumers_of, leads_to
from relu_probe.diagnosis.pre_activation import Float64Copies, PreActivation, largest, pre_activation_of
from relu_probe.report.layer_report import Floats, Mask
from relu_probe.report.report import Report
from relu_probe.structure.relu_layers import ReluLayer

_TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


class EvidenceCollector:
    """Of one ReLU layer.

    Args:
        relu: the layer.
        neurons: as many as its report has.
    """

    def __init__(self, relu: ReluLayer, neurons: int) -> None:
        self.relu = relu
        self.margin, self.pushed = np.full(neurons, -np.inf), np.full(neurons, -np.inf)
        self.reached, self.below_ceiling = np.zeros(neurons, bool), np.zeros(neurons, bool)
        self.fired, self.samples = np.zeros(neurons, np.int64), 0
        self.offset_description, self.lowest_input, self.is_first_layer = "the bias", np.inf, True
        self.known = True  # what the ReLU stands on

    def see(self, flow: CallTrace, twins: Float64Copies) -> None:
        calls = flow.of(self.relu.layer)
        samples = int(flow.inputs[0].shape[0]) if flow.inputs else 0
        if calls:
            self._count(calls, samples)
        for call in calls:
            affine = pre_activation_of(flow, call, self.relu)
            self.known = self.known and affine is not None and self._weigh(affine, call, twins)
            self.is_first_layer = self.is_first_layer and affine is not None and _nothing_learned(flow, affine.x)

    def _count(self, calls: list[TracedCall], samples: int) -> None:
        fired = np.zeros((samples, len(self.fired)), bool)
        for call in calls:
            output, axis = np.asarray(call.output), self.relu.axis
            active = np.moveaxis(output > 0, axis, -1)
            below = (output > 0) if self.relu.ceiling is None else (output > 0) & (output != self.relu.ceiling)
            self.below_ceiling |= over_neurons(np.any, below, axis)
            places = tuple(range(1, active.ndim - 1))
            # Where the samples are not told apart (folded into another axis), each may have fired: a higher limit.
            fired |= active.any(axis=places) if len(output) == samples else active.any(axis=(0, *places))
        self.fired += fired.sum(axis=0)
        self.samples += samples

    def _weigh(self, affine: PreActivation, call: TracedCall, twins: Float64Copies) -> bool:
        """Whether z could be computed, and agrees with the layer's own output."""
        try:
            product, z, reach = affine.evaluate(twins)
        except Exception:  # an option of the layer that the twin cannot have, or an operation without float64
            return False
        if z.shape != call.output.shape or not _agree(z, call.output):
            return False
        axis = self.relu.axis
        self.margin = np.maximum(self.margin, largest(z, axis))
        self.pushed = np.maximum(self.pushed, largest(product, axis))
        self.reached |= over_neurons(np.any, reach, axis)
        self.lowest_input = min(self.lowest_input, float(np.min(affine.x, initial=np.inf)))
        self.offset_description = affine.offset_description
        return True

    def evidence(
        self, flow: CallTrace, relus: list[ReluLayer], report: Report, loss: "LossGradient | None"
    ) -> Evidence:
        layer = report[self.relu.key]
        known = self.known and layer.measured and bool(np.all(self.margin > -np.inf) or np.any(np.isnan(self.margin)))
        fork = consumers_of(flow, self.relu, relus)
        unknown = np.full(layer.neurons, np.nan)
        # z of a dead neuron is at most 0 as the model computes it; in float64 it may be a rounding above.
        margin = np.where(layer.dead, np.minimum(self.margin, 0.0), self.margin)
        return Evidence(
            margin=margin if known else unknown,
            pushed=self.pushed if known else unknown,
            reached=self.reached if known else None,
            below_ceiling=self.below_ceiling,
            no_loss_gradient=None if loss is None else loss.missing(fork, leads_to(flow, self.relu), layer.neurons),
            no_outgoing=_no_outgoing(fork),
            no_downstream=_no_downstream(fork, report),
            fired=self.fired,
            samples=self.samples,
        )


class LossGradient:
    """Which of the model's outputs a gradient of the loss ever reached."""

    def __init__(self) -> None:
        self._left: dict[int, Mask] = {}  # output -> (channels,)

    def see(self, flow: CallTrace) -> None:
        for index, gradient in flow.left_loss.items():
            left = over_neurons(np.any, np.asarray(gradient) != 0, -1)
            self._left[index] = left | self._left.get(index, np.zeros_like(left))

    def missing(self, fork: Consumers | None, leads_to: set[int] | None, neurons: int) -> Mask:
        """`(neurons,)`: none left the loss for the outputs that it leads to, or is itself."""
        outputs = self._left if leads_to is None else leads_to
        if not any(np.any(self._left.get(index, False)) for index in outputs):
            return np.ones(neurons, bool)
        if fork is None or fork.fed or not fork.outputs:
            return np.zeros(neurons, bool)
        ends = [self._left.get(index, np.zeros(neurons, bool)) for index in fork.outputs]
        return ~np.any(ends, axis=0) if all(len(end) == neurons for end in ends) else np.zeros(neurons, bool)


def _no_outgoing(fork: Consumers | None) -> Mask | None:
    if fork is None or fork.outputs:
        return None
    return ~np.any([fed.connected.any(axis=1) for fed in fork.fed], axis=0)


def _no_downstream(fork: Consumers | None, report: Report) -> Mask | None:
    """All units with a weight that is not zero are dead or blocked."""
    if fork is None or fork.outputs:
        return None
    passes = []
    for fed in fork.fed:
        zero = None if fed.relu is None else report[fed.relu].zero_gradient
        open_ = np.ones(fed.connected.shape[1], bool) if zero is None else ~zero
        passes.append((fed.connected & open_).any(axis=1))
    return ~np.any(passes, axis=0)


def _agree(z: Floats, output: Any) -> bool:
    """Beyond rounding, the layer is active where z > 0 and nowhere else: nothing about it was overlooked."""
    tolerance = _TOLERANCE.get(output.dtype.name, 0.05) * (1 + np.max(np.abs(z), initial=0, where=np.isfinite(z)))
    active = np.asarray(output) > 0
    return bool(np.all(active[z > tolerance]) and not np.any(active[z < -tolerance]))


def _nothing_learned(flow: CallTrace, tensor: tf.Tensor) -> bool:
    """Between the model's inputs and the tensor there is no layer with weights to train."""
    todo = [tensor]
    while todo:
        current = todo.pop()
        if not any(current is given for given in flow.inputs):
            call = flow.producer(current)
            if call is None or getattr(call.layer, "trainable_weights", []):
                return False
            todo += call.inputs
    return True
