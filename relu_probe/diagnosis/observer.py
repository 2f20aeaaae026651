"""The observer of a diagnosis: what each step of the pass over the data shows beyond the counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.counting.neuron_axis import with_proved_axis
from relu_probe.diagnosis.bound_propagation import Certificate, Certifier
from relu_probe.diagnosis.call_trace import CallTrace, recorded
from relu_probe.diagnosis.causes import Evidence, causes
from relu_probe.diagnosis.confidence import joint_rate_limit, rate_limit
from relu_probe.diagnosis.evidence import EvidenceCollector
from relu_probe.diagnosis.input_range import InputRange
from relu_probe.diagnosis.layer_diagnosis import LayerDiagnosis
from relu_probe.diagnosis.layer_facts import initial_offset, regularizers
from relu_probe.diagnosis.loss_gradients import LossGradientCollector
from relu_probe.diagnosis.observation import extremes, is_finite, observe_activity, observe_call, received_gradients
from relu_probe.diagnosis.pre_activation import LinearCopies, PreActivation, pre_activation_of
from relu_probe.diagnosis.reach import following_relus, is_behind_no_weights
from relu_probe.diagnosis.targets import Targets
from relu_probe.report.report import Report
from relu_probe.structure.call_owners import call_owners
from relu_probe.structure.keras_layers import keras_class
from relu_probe.structure.relu_layers import ReluLayer, find_relus


class Observer:
    """Collects evidence from each step of a pass over the data: a `StepObserver`.

    Args:
        model: the model.
        bounds: of the inputs, as `diagnose` takes them.
    """

    def __init__(self, model: Any, bounds: Any = None) -> None:
        self._model = model
        self._relus = {relu.key: relu for relu in find_relus(model)}
        self._owners = {
            owner.prefix: owner.layer for owner in reversed(call_owners(model, []))
        }  # an RNN before its cells
        self._copies = LinearCopies()
        self._z: dict[str, list[PreActivation] | None] = {}  # of each call of a layer; None if some z is not visible
        self._collectors: dict[str, EvidenceCollector] = {}
        self._without_path: set[str] = set()
        self.targets = Targets(model)
        self.trace = CallTrace()  # of the newest trace
        self.loss: LossGradientCollector | None = None
        self.finite = True  # no NaN and no infinity in the data so far
        self.ranges = None if bounds is None else InputRange(bounds)

    # --- in the graph of the step -------------------------------------------------------------------------------------

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Records the calls of the step."""
        with recorded(self._model) as self.trace:
            yield

    def gradient_sources(self) -> list[Any]:
        """The outputs of the model, their logits, and the outputs of the ReLU layers."""
        outputs = [tensor for tensors in self.trace.loss_inputs() for tensor in tensors]
        return outputs + [call.output for relu in self._relus.values() for call in self.trace.calls_of(relu.layer)]

    def observe(self, batch: Any, gradients: list[Any] | None) -> dict[str, Any]:
        """What the step shows, reduced to one value per neuron, channel or input."""
        called = {key: calls for key, relu in self._relus.items() if (calls := self.trace.calls_of(relu.layer))}
        for key, calls in called.items():  # the axis by which the neurons are counted
            self._relus[key] = with_proved_axis(self._relus[key], calls[0].output) or self._relus[key]
        return {
            "finite": is_finite(batch),
            "activity": {key: observe_activity(self.trace, calls, self._relus[key]) for key, calls in called.items()},
            "calls": {key: self._observe_calls(self._relus[key], calls) for key, calls in called.items()},
            "received": {} if gradients is None else self._received(gradients),
            "targets": self.targets.observe(batch[1:2]),
            "inputs": [] if self.ranges is None else [extremes(x) for x in self.trace.inputs],
        }

    def _observe_calls(self, relu: ReluLayer, calls: list[Any]) -> list[Any]:
        found = [pre_activation_of(self.trace, call, relu) for call in calls]
        self._z[relu.key] = None
        if relu.flattened or any(z is None for z in found):
            return []
        try:
            observed = [observe_call(z, call, self._copies) for z, call in zip(found, calls) if z is not None]
        except Exception:  # the copy cannot have an option of the layer, or an operation has no float64 kernel
            return []
        self._z[relu.key] = [z for z in found if z is not None]
        return observed

    def _received(self, gradients: list[Any]) -> dict[str, Any]:
        each = iter(gradients)
        outputs = [[next(each) for _ in tensors] for tensors in self.trace.loss_inputs()]
        reached = {key: [next(each) for _ in self.trace.calls_of(relu.layer)] for key, relu in self._relus.items()}
        self._without_path = {key for key, found in reached.items() if found and all(g is None for g in found)}
        received = {str(i): received_gradients(found) for i, found in enumerate(outputs)}
        return {index: mask for index, mask in received.items() if mask is not None}

    # --- between the steps --------------------------------------------------------------------------------------------

    def collect(self, observed: Any) -> None:
        """Adds what one step has shown."""
        observed = tf.nest.map_structure(np.asarray, observed)
        self.targets.collect(observed["targets"])
        self.finite = self.finite and bool(observed["finite"])
        for key, activity in observed["activity"].items():
            self._collect_layer(key, activity, observed["calls"][key])
        if observed["received"]:
            self.loss = self.loss or LossGradientCollector(self._without_path)
            self.loss.collect({int(index): mask for index, mask in observed["received"].items()})
        if self.ranges is not None:
            self.ranges.collect([(x.dtype, low, high) for x, (low, high) in zip(self.trace.inputs, observed["inputs"])])

    def _collect_layer(self, key: str, activity: dict[str, Any], calls: list[Any]) -> None:
        relu, z = self._relus[key], self._z[key]
        if key not in self._collectors:
            self._collectors[key] = collector = EvidenceCollector(relu, len(activity["fired"]))
            collector.is_first_layer = z is not None and all(is_behind_no_weights(self.trace, each.x) for each in z)
        self._collectors[key].collect_activity(activity)
        dtypes = [call.output.dtype.name for call in self.trace.calls_of(relu.layer)]
        self._collectors[key].collect_calls(None if z is None else list(zip(z, dtypes, calls)))

    # --- after the pass -----------------------------------------------------------------------------------------------

    def layer(self, key: str, report: Report, certifier: Certifier | None, confidence: float) -> LayerDiagnosis:
        """The diagnosis of one layer."""
        counts, relu = report[key], self._relus.get(key)
        if relu is None:  # written as a function: its neurons are counted, and nothing before or behind it is visible
            return self._function(key, report, certified=certifier is not None, confidence=confidence)
        collector = self._collectors.get(key)
        if collector is None or len(collector.fired) != counts.neurons:
            collector = EvidenceCollector(relu, counts.neurons)
        evidence = collector.evidence(self.trace, list(self._relus.values()), report, self.loss)
        certificate = certifier.certify(relu, counts.neurons) if certifier else Certificate(None)
        return LayerDiagnosis(
            report=counts,
            cause=causes(counts, evidence),
            margin=evidence.margin,
            certified=certificate.certified,
            rate_limit=rate_limit(evidence.fired, evidence.samples, confidence),
            joint_rate_limit=joint_rate_limit(evidence.fired, evidence.samples, confidence),
            offset_description=collector.offset_description,
            is_first_layer=collector.is_first_layer,
            lowest_input=collector.lowest_input,
            input_offset=float("nan") if collector.inputs is None else collector.inputs.offset,
            input_size=float("nan") if collector.inputs is None else collector.inputs.size,
            bounds_stopped_at=certificate.stopped_at,
            revivable=evidence.receives_input is not None and evidence.no_outgoing is not None,
            finite_inputs=collector.inputs is None or collector.inputs.finite,
            **self._structure(relu, report),
        )

    def _function(self, key: str, report: Report, *, certified: bool, confidence: float) -> LayerDiagnosis:
        counts = report[key]
        missing = None if self.loss is None else self.loss.missing(None, None, counts.neurons)
        evidence = Evidence.without_structure(counts, missing)
        return LayerDiagnosis(
            report=counts,
            cause=causes(counts, evidence),
            margin=evidence.margin,
            certified=np.zeros(counts.neurons, bool) if certified else None,
            rate_limit=rate_limit(evidence.fired, evidence.samples, confidence),
            joint_rate_limit=joint_rate_limit(evidence.fired, evidence.samples, confidence),
            offset_description="the bias",
            is_first_layer=False,
            lowest_input=float("nan"),
            input_offset=float("nan"),
            bounds_stopped_at="",
            feeds=self._feeds(self._holder(key), report),
        )

    def _holder(self, key: str) -> Any:
        """The counted ReLU layer of that key, or the layer in whose call it stands as a function."""
        prefix = key.rpartition("/")[0]
        return self._relus[key].layer if key in self._relus else self._owners.get(f"{prefix}/" if prefix else "")

    def _feeds(self, layer: Any, report: Report) -> tuple[str, ...]:
        return tuple(following_relus(self.trace, layer, {key: self._holder(key) for key in report}))

    def _structure(self, relu: ReluLayer, report: Report) -> dict[str, Any]:
        """The fields of a `LayerDiagnosis` that the structure of the model and the settings of its layers give."""
        calls, z = self.trace.calls_of(relu.layer), self._z.get(relu.key) or []
        outputs = {i for call in calls if (i := self.trace.output_index(call.output)) is not None}
        behind_batch_norm = any("BatchNormalization" in each.offset_description for each in z)
        first = next(iter(z), None)
        own = [] if first is None else [call.layer for call in first.chain]
        return {
            "feeds": self._feeds(relu.layer, report),
            "is_output": bool(outputs),
            "behind_batch_norm": behind_batch_norm,
            "initial_offset": None if first is None else initial_offset(*[call.layer for call in first.chain]),
            "offset": first.bias
            if first is not None and first.offset_description == "the bias" and first.bias.ndim == 1
            else None,
            "regularizers": regularizers(*dict.fromkeys(own), *_regularizing_layers(self.trace, calls)),
            "targets": self.targets.below_zero(outputs.pop(), len(self.trace.outputs)) if len(outputs) == 1 else None,
        }


def _regularizing_layers(trace: CallTrace, calls: list[Any]) -> list[Any]:
    """The ActivityRegularization layers directly behind these calls."""
    behind = [layer for call in calls for layer in trace.passing(call.output)]
    return [layer for layer in behind if keras_class(layer) == "ActivityRegularization"]
