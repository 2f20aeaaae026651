"""Why did it die, how sure is that, and what follows? One pass over the data, weights frozen, inference mode."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.bound_propagation import Certificate, Certifier
from relu_probe.diagnosis.call_trace import CallTrace, recorded
from relu_probe.diagnosis.causes import Causes, causes
from relu_probe.diagnosis.confidence import joint_rate_limit, rate_limit
from relu_probe.diagnosis.evidence import EvidenceCollector, LossGradient
from relu_probe.diagnosis.pre_activation import Float64Copies
from relu_probe.measuring.data import read_batches
from relu_probe.measuring.measurer import Measurer, check_built
from relu_probe.report.export import import_pandas
from relu_probe.report.history import History
from relu_probe.report.layer_report import Floats, LayerReport, Mask
from relu_probe.report.loss_jumps import LossJump
from relu_probe.report.report import Report
from relu_probe.structure.relu_layers import find_relus
from relu_probe.structure.support import check_model, is_tf_keras
from relu_probe.utils.validation import check_confidence


@dataclass(frozen=True, eq=False)
class LayerDiagnosis:
    """Of one layer, an entry a neuron.

    Args:
        report: its counts.
        cause: `(neurons,)` of str, "" for a healthy neuron. Dead: "input", "bias", "weights". Blocked: "loss",
            "saturated", "outgoing", "downstream". "unknown" where the structure is not visible.
        margin: `(neurons,)`, the largest z over the data: how far from firing; nan where not visible.
        certified: `(neurons,)` bool, no input within the bounds makes it fire, in inference mode; None without bounds.
        rate_limit: `(neurons,)`, the upper confidence limit of the rate at which it fires on such samples.
        joint_rate_limit: `(neurons,)`, limits that hold for all neurons of the layer at once.
        offset_description: what keeps z down where the cause is "bias": the bias, BatchNormalization's beta, a threshold.
        is_first_layer: no layer with weights stands between it and the model's inputs.
        lowest_input: the smallest of its inputs on the data.
        bounds_stopped_at: the layer at which the bounds could not be carried further, "" where they could.
    """

    report: LayerReport
    cause: Causes
    margin: Floats
    certified: Mask | None
    rate_limit: Floats
    joint_rate_limit: Floats
    offset_description: str
    is_first_layer: bool
    lowest_input: float
    bounds_stopped_at: str


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `diagnose` found; `str()` says it in words, with what follows from it.

    Args:
        layers: name -> `LayerDiagnosis`, in the model's order.
        report: the `Report` it rests on.
        confidence: of the rate limits.
        history: from the probe; None without a probe.
        loss_jumps: of the loss, from the probe.
        finite_data: no NaN and no infinity is in the data, labels included.
        first_nonfinite_weight: the first weight of the model with a NaN or an infinity, "" where there is none.
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
        """The first with dead neurons; where there is none, the first with blocked ones; None in a healthy model."""
        sick = {name: np.any(layer.cause != "") for name, layer in self.layers.items()}
        dying = {name: np.any(layer.report.dead) for name, layer in self.layers.items()}
        return next((name for found in (dying, sick) for name, is_so in found.items() if is_so), None)

    def to_frame(self) -> Any:
        """A pandas DataFrame, a row a neuron.

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
        from relu_probe.diagnosis.explain import verdict

        return verdict(self)


def diagnose(model: Any, data: Any, *, bounds: Any = None, confidence: float = 0.95, probe: Any = None) -> Diagnosis:
    """Why each dead or blocked neuron of `model` is so on `data`, how sure that is, and what to do.

    Args:
        model: a built Keras model. Blocked neurons need a compiled loss.
        data: as `measure` takes it. x alone: dead neurons only.
        bounds: `(low, high)` of the inputs, scalars or arrays of the input's shape: neurons that cannot fire anywhere
            in that box are certified dead, where the way to them leads through Dense, ReLU, Flatten and Dropout only.
        confidence: of the limits on the rates at which neurons fire, for independent, identically distributed samples.
        probe: the `ReluProbe` of the training, for when they died.

    Raises:
        TypeError: probe is no ReluProbe.
        ValueError: as `measure` does; bounds that are not finite or have low > high; a confidence outside (0, 1).

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
    certifier = None if bounds is None else Certifier(observer.flow, bounds)
    layers = {key: observer.layer(key, report, certifier, confidence) for key in report}
    history, loss_jumps = (None, ()) if probe is None else (probe.history, tuple(probe.loss_jumps))
    return Diagnosis(MappingProxyType(layers), report, confidence, history, loss_jumps, observer.finite, _spoilt(model))


def _is_finite(values: Any) -> bool:
    return all(
        tf.reduce_all(tf.math.is_finite(part))
        for part in tf.nest.flatten(values, expand_composites=True)
        if tf.convert_to_tensor(part).dtype.is_floating
    )


def _spoilt(model: Any) -> str:
    weights = [weight for weight in model.weights if not _is_finite(tf.convert_to_tensor(weight))]
    return str(getattr(weights[0], "path", weights[0].name)) if weights else ""


def _check_strategy(model: Any) -> None:
    if tf.distribute.in_cross_replica_context():
        raise ValueError("diagnose was called inside strategy.scope(); expected it outside. Call it behind the block.")
    strategy = model.distribute_strategy
    replicated = is_tf_keras(model) and strategy.num_replicas_in_sync > 1  # its metrics are kept for each replica
    if replicated or isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            f"model {model.name!r} was made under {type(strategy).__name__}, and diagnose runs in one replica; expected a "
            "model made outside of it. Save it, and load it outside of the strategy."
        )


class _Observer:
    """Collects evidence from each step of a pass over the data: a `StepObserver`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._relus = {relu.key: relu for relu in find_relus(model)}
        self.flow = CallTrace()  # of the last batch
        self.loss: LossGradient | None = None
        self.witnesses: dict[str, EvidenceCollector] = {}
        self.finite = True  # all that came in
        self._twins = Float64Copies()

    @contextmanager
    def observe(self, batch: Any, *, gradients: bool) -> Iterator[None]:
        """Checks the batch for values that are not finite, and records the calls and gradients of the step."""
        self.finite = self.finite and _is_finite(batch)
        if gradients and self.loss is None:
            self.loss = LossGradient()
        with recorded(self._model) as self.flow:
            yield
        for key, relu in self._relus.items():
            if key not in self.witnesses and (calls := self.flow.of(relu.layer)):
                self.witnesses[key] = EvidenceCollector(relu, int(calls[0].output.shape[relu.axis]))
            if key in self.witnesses:
                self.witnesses[key].see(self.flow, self._twins)
        if self.loss is not None:
            self.loss.see(self.flow)

    def layer(self, key: str, report: Report, certifier: Certifier | None, confidence: float) -> LayerDiagnosis:
        counts, relu = report[key], self._relus[key]
        witness = self.witnesses.get(key) or EvidenceCollector(relu, counts.neurons)
        evidence = witness.evidence(self.flow, list(self._relus.values()), report, self.loss)
        certificate = certifier.certify(relu, counts.neurons) if certifier else Certificate(None)
        return LayerDiagnosis(
            report=counts,
            cause=causes(counts, evidence),
            margin=evidence.margin,
            certified=certificate.certified,
            rate_limit=rate_limit(evidence.fired, evidence.samples, confidence),
            joint_rate_limit=joint_rate_limit(evidence.fired, evidence.samples, confidence),
            offset_description=witness.offset_description,
            is_first_layer=witness.is_first_layer,
            lowest_input=witness.lowest_input,
            bounds_stopped_at=certificate.stopped_at,
        )
