"""Evidence for the causes, added up from the observations of each step of a pass over the data. NumPy, apart from the trace."""

from typing import Any

import numpy as np

from relu_probe.diagnosis.call_trace import CallTrace
from relu_probe.diagnosis.causes import Evidence
from relu_probe.diagnosis.consumers import Consumers, consumers_of
from relu_probe.diagnosis.input_moments import InputMoments
from relu_probe.diagnosis.loss_gradients import LossGradientCollector
from relu_probe.diagnosis.observation import CallObservation
from relu_probe.diagnosis.pre_activation import PreActivation
from relu_probe.diagnosis.reach import reachable_outputs
from relu_probe.report.layer_report import Mask
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
        self.has_weights = np.zeros(neurons, bool)
        self.fired, self.samples = np.zeros(neurons, np.int64), 0
        self.offset_description, self.lowest_input, self.is_first_layer = "the bias", np.inf, False
        self.inputs: InputMoments | None = None
        self._z_is_known = True

    def collect_activity(self, activity: dict[str, Any]) -> None:
        """Adds what `observe_activity` returned of one step."""
        self.below_ceiling |= activity["below_ceiling"]
        self.fired += activity["fired"]
        self.samples += int(activity["samples"])

    def collect_calls(self, calls: list[tuple[PreActivation, str, CallObservation]] | None) -> None:
        """Adds what `observe_call` returned of each call in one step, with z and the dtype of the output.

        None if z of some call is not visible.
        """
        self._z_is_known = self._z_is_known and calls is not None and all(_agrees(*call) for call in calls)
        for z, _, seen in calls if self._z_is_known and calls is not None else ():
            self.margin = np.maximum(self.margin, z.of_product(_sign(z) * seen.largest))
            self.largest_product = np.maximum(self.largest_product, np.abs(z.scale) * seen.largest_product)
            self.receives_input |= seen.receives_input
            self.has_weights |= seen.has_weights
            self.lowest_input = min(self.lowest_input, float(seen.lowest_input))
            self.offset_description = z.offset_description
            self.inputs = InputMoments.of(z, seen).plus(self.inputs)

    def evidence(
        self, trace: CallTrace, relus: list[ReluLayer], report: Report, loss: LossGradientCollector | None
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
            has_weights=self.has_weights,
            no_path=np.full(layer.neurons, loss is not None and loss.has_no_path(self.relu.key)),
            below_ceiling=self.below_ceiling,
            no_loss_gradient=no_loss_gradient,
            no_outgoing=_no_outgoing(consumers),
            no_downstream=_no_downstream(consumers, report),
            only_relus=_only_relus(consumers, report),
            fired=self.fired if self.samples else np.minimum(layer.active, layer.samples),  # no call was visible
            samples=min(self.samples, layer.samples)
            or max(self.samples, layer.samples),  # it may see a part of a batch only
        )


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
        following = None if relu is None else report.layers.get(relu)
        zero_gradient = None if following is None else following.zero_gradient
        learns = np.ones(connected.shape[1], bool) if zero_gradient is None else ~zero_gradient
        passes.append((connected & learns).any(axis=1))
    return ~np.any(passes, axis=0)


def _only_relus(consumers: Consumers | None, report: Report) -> Mask | None:
    """`(neurons,)` bool: all units that a weight other than zero leads to are of ReLUs whose gradients are counted."""
    if consumers is None or consumers.outputs:
        return None
    counted = {key for key, layer in report.layers.items() if layer.zero_gradient is not None}
    return ~np.any([each.connected.any(axis=1) & (each.relu not in counted) for each in consumers.connections], axis=0)


def _sign(z: PreActivation) -> Any:
    return np.where(np.asarray(z.scale) < 0, -1.0, 1.0)


def _agrees(z: PreActivation, dtype: str, seen: CallObservation) -> bool:
    """Whether the layer is active if z > 0, and only then, up to rounding: then nothing about it was overlooked."""
    with np.errstate(invalid="ignore", over="ignore"):  # of an infinite or enormous value
        extremes = (seen.largest, seen.smallest, seen.largest_inactive, seen.smallest_active)
        largest, smallest, inactive, active = (z.of_product(_sign(z) * value) for value in extremes)
    size = np.abs([largest, smallest])
    tolerance = _TOLERANCE.get(dtype, 0.05) * (1 + np.max(size, initial=0, where=np.isfinite(size)))
    return not (np.any(inactive > tolerance) or np.any(active < -tolerance))
