"""`diagnose`: one pass over the data, with frozen weights and in inference mode, and the `Diagnosis` it returns."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.bound_propagation import Certificate, Certifier
from relu_probe.diagnosis.call_trace import CallTrace, recorded
from relu_probe.diagnosis.causes import causes
from relu_probe.diagnosis.confidence import joint_rate_limit, rate_limit
from relu_probe.diagnosis.evidence import EvidenceCollector, LossGradientCollector
from relu_probe.diagnosis.explain import explain
from relu_probe.diagnosis.layer_diagnosis import LayerDiagnosis
from relu_probe.diagnosis.pre_activation import Float64Copies
from relu_probe.measuring.data import read_batches
from relu_probe.measuring.measurer import Measurer, check_built
from relu_probe.report.export import import_pandas
from relu_probe.report.history import History
from relu_probe.report.loss_jumps import LossJump
from relu_probe.report.report import Report
from relu_probe.structure.relu_layers import find_relus
from relu_probe.structure.support import check_model, is_tf_keras
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.validation import check_confidence


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `diagnose` found. `str()` is a text of the causes, how sure they are, and the remedies.

    Args:
        layers: layer name -> `LayerDiagnosis`, in the model's order.
        report: the `Report` with the counts.
        confidence: the confidence level of the rate limits.
        history: the history of the neurons in the fit that the probe watched; None without a probe.
        loss_jumps: the jumps of the loss in that fit; empty without a probe.
        finite_data: no NaN and no infinity is in the data, labels included.
        first_nonfinite_weight: the path of the model's first weight with a NaN or an infinity, "" if there is none.
    """

    layers: Mapping[str, LayerDiagnosis]
    report: Report
    confidence: float
    history: History | None = None
    loss_jumps: tuple[LossJump, ...] = ()
    finite_data: bool = True
    first_nonfinite_weight: str = ""

    @property
    def first_sick_layer(self) -> str | None:
        """The first layer with dead neurons, else the first with blocked neurons; None in a healthy model."""
        dead = [name for name, layer in self.layers.items() if np.any(layer.report.dead)]
        sick = [name for name, layer in self.layers.items() if np.any(layer.cause != "")]
        return next(iter(dead + sick), None)

    def to_frame(self) -> Any:
        """A pandas DataFrame with one row per neuron and the columns layer, neuron, cause, margin, certified, rate_limit
        and joint_rate_limit.

        Raises:
            ImportError: pandas is not installed.
        """
        pd = import_pandas()
        columns = ("cause", "margin", "certified", "rate_limit", "joint_rate_limit")
        frames = [
            pd.DataFrame(
                {"layer": name, "neuron": np.arange(layer.report.neurons)} | {c: getattr(layer, c) for c in columns}
            )
            for name, layer in self.layers.items()
        ]
        return pd.concat(frames, ignore_index=True)

    def __str__(self) -> str:
        return explain(
            self.layers,
            self.report,
            self.confidence,
            first_sick_layer=self.first_sick_layer,
            history=self.history,
            loss_jumps=self.loss_jumps,
            finite_data=self.finite_data,
            first_nonfinite_weight=self.first_nonfinite_weight,
        )


def diagnose(model: Any, data: Any, *, bounds: Any = None, confidence: float = 0.95, probe: Any = None) -> Diagnosis:
    """Finds the cause of each dead or blocked neuron of `model` on `data`, how sure it is, and what to do.

    Args:
        model: a built Keras model. Blocked neurons are found only if it has a compiled loss.
        data: the same types as for `measure`. With x alone only dead neurons are found.
        bounds: `(low, high)` of the inputs, scalars or arrays of the input's shape. Neurons that cannot fire for any
            input in that box are certified dead, if only Dense, ReLU, Flatten and Dropout layers lead to them.
        confidence: the confidence level of the limits on the rates at which neurons fire. The limits hold for
            independent, identically distributed samples.
        probe: the `ReluProbe` of the training; it knows when the neurons died.

    Raises:
        TypeError: probe is not a ReluProbe.
        ValueError: for the reasons for which `measure` raises it, for bounds that are not finite or have low > high, and
            for a confidence outside (0, 1).

    >>> import tensorflow as tf
    >>> bias = tf.keras.initializers.Constant([-100.0, 100.0])
    >>> model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(
    ...     2, "relu", kernel_initializer="ones", bias_initializer=bias, name="hidden")])
    >>> found = diagnose(model, tf.ones((8, 3)), bounds=(0, 1))
    >>> found.layers["hidden"].cause.tolist(), found.layers["hidden"].margin.tolist()
    (['bias', ''], [-97.0, 103.0])
    >>> found.layers["hidden"].certified
    array([ True, False])
    """
    check_model(model)
    _check_strategy(model)
    confidence = check_confidence(confidence)
    if probe is not None and not isinstance(getattr(probe, "history", None), History):
        raise TypeError(f"probe is {probe!r:.60}; expected the ReluProbe of the training, or None.")
    check_built(model)
    observer = _Observer(model)
    report = Measurer(model, observer).run(read_batches(data, batch_size=256))
    certifier = None if bounds is None else Certifier(observer.trace, bounds)
    layers = {key: observer.layer(key, report, certifier, confidence) for key in report}
    history, loss_jumps = (None, ()) if probe is None else (probe.history, tuple(probe.loss_jumps))
    return Diagnosis(
        MappingProxyType(layers),
        report,
        confidence,
        history,
        loss_jumps,
        observer.finite,
        _first_nonfinite_weight(model),
    )


def _is_finite(values: Any) -> bool:
    return all(
        tf.reduce_all(tf.math.is_finite(part))
        for part in tf.nest.flatten(values, expand_composites=True)
        if tf.convert_to_tensor(part).dtype.is_floating
    )


def _first_nonfinite_weight(model: Any) -> str:
    weight = next((w for w in model.weights if not _is_finite(tf.convert_to_tensor(w))), None)
    return "" if weight is None else str(getattr(weight, "path", weight.name))


def _check_strategy(model: Any) -> None:
    if tf.distribute.in_cross_replica_context():
        raise ValueError("diagnose was called inside strategy.scope(); expected it outside. Call it after the block.")
    strategy = model.distribute_strategy
    replicated = is_tf_keras(model) and strategy.num_replicas_in_sync > 1  # its metrics are kept for each replica
    if replicated or isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            f"model {shown(repr(model.name))} was made under {type(strategy).__name__}, and diagnose runs in one replica; expected a "
            "model made outside of it. Save it, and load it outside of the strategy."
        )


class _Observer:
    """Collects evidence from each step of a pass over the data: a `StepObserver`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._relus = {relu.key: relu for relu in find_relus(model)}
        self.trace = CallTrace()  # of the last batch
        self.loss: LossGradientCollector | None = None
        self.collectors: dict[str, EvidenceCollector] = {}
        self.finite = True  # no NaN and no infinity in the data so far
        self._copies = Float64Copies()

    @contextmanager
    def observe(self, batch: Any, *, gradients: bool) -> Iterator[None]:
        """Checks the batch for values that are not finite, and records the calls and gradients of the step."""
        self.finite = self.finite and _is_finite(batch)
        if gradients and self.loss is None:
            self.loss = LossGradientCollector()
        with recorded(self._model) as self.trace:
            yield
        for key, relu in self._relus.items():
            if key not in self.collectors and (calls := self.trace.calls_of(relu.layer)):
                self.collectors[key] = EvidenceCollector(relu, int(calls[0].output.shape[relu.axis]))
            if key in self.collectors:
                self.collectors[key].collect(self.trace, self._copies)
        if self.loss is not None:
            self.loss.collect(self.trace)

    def layer(self, key: str, report: Report, certifier: Certifier | None, confidence: float) -> LayerDiagnosis:
        """The diagnosis of one layer, after all batches."""
        counts, relu = report[key], self._relus[key]
        collector = self.collectors.get(key) or EvidenceCollector(relu, counts.neurons)
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
            bounds_stopped_at=certificate.stopped_at,
        )
