"""Evidence for the causes, added up from the observations of each step of a pass over the data. NumPy, apart from the trace."""

from typing import Any

import numpy as np

from relu_probe.diagnosis.call_trace import CallTrace
from relu_probe.diagnosis.causes import Evidence
from relu_probe.diagnosis.consumers import Consumers, consumers_of, reachable_outputs
from relu_probe.diagnosis.observation import CallObservation
from relu_probe.diagnosis.pre_activation import PreActivation
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
            has_weights=self.has_weights,
            no_path=np.full(layer.neurons, loss is not None and loss.has_no_path(self.relu.key)),
            below_ceiling=self.below_ceiling,
            no_loss_gradient=no_loss_gradient,
            no_outgoing=_no_outgoing(consumers),
            no_downstream=_no_downstream(consumers, report),
            fired=self.fired,
            samples=self.samples,
        )


class LossGradientCollector:
    """Collects, over all batches, which channels of the model's outputs received a gradient of the loss.

    Args:
        without_path: the keys of the ReLU layers to which no path leads from the loss.
    """

    def __init__(self, without_path: set[str]) -> None:
        self._received: dict[int, Mask] = {}  # index of the output -> (channels,)
        self._without_path = without_path

    def collect(self, received: dict[int, Mask]) -> None:
        """Adds the gradients of one batch: index of the output -> `(channels,)`, one that is not zero arrived."""
        for index, mask in received.items():
            self._received[index] = mask | self._received.get(index, np.zeros_like(mask))

    def has_no_path(self, key: str) -> bool:
        """Whether the derivative of the loss by the layer's output does not exist, rather than being zero."""
        return key in self._without_path

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
        following = None if relu is None else report.layers.get(relu)
        zero_gradient = None if following is None else following.zero_gradient
        learns = np.ones(connected.shape[1], bool) if zero_gradient is None else ~zero_gradient
        passes.append((connected & learns).any(axis=1))
    return ~np.any(passes, axis=0)


class InputMoments:
    """Mean and deviation of each input channel of a layer, over all samples and places.

    Args:
        count: the number of inputs of a channel.
        total, squares: `(channels,)`, the sums of the inputs and of their squares.
        used: `(channels,)` bool, some weight of the channel is not zero.
    """

    def __init__(self, count: int, total: Floats, squares: Floats, used: Mask) -> None:
        self.count, self.total, self.squares, self.used = count, total, squares, used

    @classmethod
    def of(cls, z: PreActivation, seen: CallObservation) -> "InputMoments":
        """The moments of the inputs of one call."""
        return cls(int(seen.input_count), seen.input_sum, seen.input_square_sum, z.used_channels(len(seen.input_sum)))

    def plus(self, other: "InputMoments | None") -> "InputMoments":
        """The moments of both."""
        if other is None or len(other.total) != len(self.total):
            return self
        return InputMoments(self.count + other.count, self.total + other.total, self.squares + other.squares, self.used)

    @property
    def offset(self) -> float:
        """The norm of the inputs' mean over the norm of their deviation: 0 if they are centred; nan if all are zero."""
        mean = self.total / max(self.count, 1)
        variance = np.maximum(self.squares / max(self.count, 1) - mean**2, 0)
        # What is left of a constant by rounding is no deviation.
        variance[variance < 1e-12 * mean**2] = 0
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.linalg.norm(mean[self.used]) / np.sqrt(variance[self.used].sum()))


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


def is_behind_no_weights(trace: CallTrace, tensor: Any) -> bool:
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
