"""`diagnose`: one pass over the data, with frozen weights and in inference mode, and the `Diagnosis` it returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.advice import Advice
from relu_probe.diagnosis.advise import advise
from relu_probe.diagnosis.bound_propagation import Certifier
from relu_probe.diagnosis.explain import Explanation
from relu_probe.diagnosis.layer_diagnosis import LayerDiagnosis
from relu_probe.diagnosis.layer_facts import OptimizerFacts
from relu_probe.diagnosis.observation import is_finite
from relu_probe.diagnosis.observer import Observer
from relu_probe.diagnosis.roots import SicknessGraph
from relu_probe.measuring.data import read_batches
from relu_probe.measuring.input_checks import check_built
from relu_probe.measuring.measurer import Measurer, Verbosity
from relu_probe.measuring.nothing_counted import warn_if_nothing_is_counted
from relu_probe.report.export import import_pandas
from relu_probe.report.history import History
from relu_probe.report.loss_jumps import LossJump
from relu_probe.report.markup import html_table
from relu_probe.report.report import Report
from relu_probe.report.summary import summary
from relu_probe.structure.support import check_model, is_tf_keras
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.validation import check_confidence


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """What `diagnose` found. `str()` is a text of the causes, how sure they are, and the advice.

    Args:
        layers: layer name -> `LayerDiagnosis`, in the model's order.
        report: the `Report` with the counts.
        confidence: the confidence level of the rate limits.
        history: the history of the neurons in the fit that the probe watched; None without a probe.
        loss_jumps: the jumps of the loss in that fit; empty without a probe.
        finite_data: no NaN and no infinity is in the data, labels included.
        first_nonfinite_weight: the path of the model's first weight with a NaN or an infinity, "" if there is none.
        optimizer: the optimizer of the model.
        training_report: the newest report of the probe on training batches; None without one.
        target_size: the root mean square of the targets of a mean squared error; nan for other losses, or if one is not finite.
        bounds_left: a sentence if the data leaves the bounds, else "".
    """

    layers: Mapping[str, LayerDiagnosis]
    report: Report
    confidence: float
    history: History | None = None
    loss_jumps: tuple[LossJump, ...] = ()
    finite_data: bool = True
    first_nonfinite_weight: str = ""
    optimizer: OptimizerFacts = field(default_factory=OptimizerFacts)
    training_report: Report | None = None
    target_size: float = float("nan")
    bounds_left: str = ""

    @property
    def first_sick_layer(self) -> str | None:
        """The root: the layer that explains the most dead and blocked neurons, its own included; None in a healthy model.

        A wholly dead layer blocks what is before it and starves what is behind it, and so goes before a few dead neurons in
        an earlier layer. Of layers that explain equally many the earliest is the root.
        """
        return self._graph.root()

    @property
    def advice(self) -> tuple[Advice, ...]:
        """What to do, the root first; `()` for a healthy model."""
        return advise(self, self._graph)

    @property
    def _graph(self) -> SicknessGraph:
        return SicknessGraph(self.layers)

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

    def __repr__(self) -> str:
        root = "no sick layer" if (first := self.first_sick_layer) is None else f"the root is {shown(first)}"
        return f"<Diagnosis: {summary(self.report.layers, self.report.unseen)}; {root}>"

    def _repr_html_(self) -> str:
        return f'<pre style="white-space: pre-wrap">{escape(str(self))}</pre>{html_table(self.report.cells())}'

    def __str__(self) -> str:
        parts = (self.layers, self.report, self.confidence, self.advice, self._graph, self.history, self.bounds_left)
        return str(Explanation(*parts))


def diagnose(
    model: Any,
    data: Any,
    *,
    batch_size: int = 32,
    bounds: Any = None,
    confidence: float = 0.95,
    probe: Any = None,
    verbose: Verbosity = 0,
) -> Diagnosis:
    """Finds the cause of each dead or blocked neuron of `model` on `data`, how sure it is, and what to do.

    Args:
        model: a built Keras model. Blocked neurons are found only if it has a compiled loss.
        data: the same types as for `measure`. With x alone only dead neurons are found.
        batch_size: samples in each step, for arrays.
        bounds: `(low, high)` of the inputs, scalars or arrays of the input's shape. Neurons that cannot fire for any
            input in that box are certified dead. The bounds are carried through linear layers, BatchNormalization, ReLU,
            pooling, padding, Add, Concatenate and Flatten; where they stop, the text says so.
        confidence: the confidence level of the limits on the rates at which neurons fire. The limits hold for
            independent, identically distributed samples.
        probe: the `ReluProbe` or the `watch` of the training; it knows when the neurons died.
        verbose: 0 is silent, 1 or "auto" shows Keras's progress bar, 2 prints one line.

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
    observer = Observer(model, bounds)
    report = Measurer(model, observer).run(read_batches(data, batch_size), verbose)
    warn_if_nothing_is_counted(report)
    ranges = observer.ranges
    certifier = None if ranges is None else Certifier(observer.trace, ranges.boxes)
    layers = {key: observer.layer(key, report, certifier, confidence) for key in report}
    history, loss_jumps = (None, ()) if probe is None else (probe.history, tuple(probe.loss_jumps))
    newest = next(reversed(getattr(probe, "reports", [])), None)
    return Diagnosis(
        MappingProxyType(layers),
        report,
        confidence,
        history,
        loss_jumps,
        finite_data=observer.finite,
        first_nonfinite_weight=_first_nonfinite_weight(model),
        optimizer=OptimizerFacts.of(model),
        training_report=newest if newest is not None and newest.source == "train" else None,
        target_size=observer.targets.size,
        bounds_left="" if ranges is None else ranges.sentence(),
    )


def _first_nonfinite_weight(model: Any) -> str:
    weight = next((w for w in model.weights if not is_finite(tf.convert_to_tensor(w))), None)
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
