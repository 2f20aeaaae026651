"""Messages about NaN: what a fit prints once, and where a diagnosis finds their origin. Free of TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

import numpy as np

from relu_probe.diagnosis.advice import SOURCES, TEXTS, Advice, rate_text
from relu_probe.diagnosis.structure_triggers import LARGE, targets_words
from relu_probe.report.loss_jumps import LossJump
from relu_probe.report.report import Report
from relu_probe.report.text_table import wrapped
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.wording import number


def nan_line(report: Report) -> str:
    """The message that a fit prints once when NaN appear, which a dead fraction of 0 does not show; "" without NaN.

    >>> from relu_probe.report.layer_report import LayerReport
    >>> hidden = LayerReport(samples=2, positions=2, active=[0, 2], nan=[True, False])
    >>> print(nan_line(Report({"hidden": hidden}, epoch=3)))
    relu_probe: NaN in epoch 3 at 1 of 2 neurons, first in layer hidden, counted
    neither as active nor as dead. More: print(diagnose(model, data, probe=probe))
    """
    counts = {name: np.count_nonzero(layer.nan) for name, layer in report.layers.items() if np.any(layer.nan)}
    if not counts:
        return ""
    neurons = sum(layer.neurons for layer in report.layers.values() if layer.measured)
    when = "before the first step" if report.epoch == -1 else f"in epoch {report.epoch}"
    line = (
        f"relu_probe: NaN {when} at {sum(counts.values()):,} of {number(neurons, 'neuron')}, first in layer {shown(next(iter(counts)))}, "
        "counted neither as active nor as dead. More: print(diagnose(model, data, probe=probe))"
    )
    return "\n".join(wrapped(line))


def nan_advice(diagnosis: Any) -> list[Advice]:
    """Where the NaN of the ReLU layers of a `Diagnosis` come from, as far as it shows, and what to do; [] without NaN."""
    masks = {name: layer.report.nan for name, layer in diagnosis.layers.items() if np.any(layer.report.nan)}
    if not masks:
        return []
    found = [*_from_data(diagnosis), *_from_weights(diagnosis)] or [
        (
            "nan_arithmetic",
            "The weights and the data are finite. Look at what comes before the first layer with "
            "NaN: a division by zero, a logarithm, sums that overflow.",
        )
    ]
    return [Advice(kind, tuple(masks), MappingProxyType(masks), text, SOURCES[kind]) for kind, text in found]


def _from_data(diagnosis: Any) -> list[tuple[str, str]]:
    """Kind and text of the advice about NaN that come from the data, or from what the model computes of it."""
    if not diagnosis.finite_data:
        text = "The data contains NaN or infinities. Clean it, labels included, until np.isfinite(x).all() is True."
        return [("nan_data", text)]
    origin = _arithmetic(diagnosis)
    text = f"{origin} Look for a division by zero, a logarithm, sums that overflow."
    return [("nan_arithmetic", text)] if origin else []


def _from_weights(diagnosis: Any) -> list[tuple[str, str]]:
    """Kind and text of the advice about weights that are not finite, and why they blew up."""
    if not (weight := diagnosis.first_nonfinite_weight):
        return []
    jumps = diagnosis.loss_jumps
    text = f"The weights contain NaN or infinities, first in {shown(weight)}. {_when_lost(jumps)}"
    found = [("nan_weights", f"{text}No training takes that back: load weights from before.")]
    if rises := [jump for jump in jumps if jump.is_large_rise]:
        if diagnosis.target_size > LARGE:
            found.append(("targets", f"{targets_words(diagnosis.target_size)} {TEXTS['targets']}"))
        found.append(
            ("learning_rate", f"The {rises[0].quantity} rose before it was lost. {rate_text(diagnosis.optimizer)}")
        )
    return found


def _arithmetic(diagnosis: Any) -> str:
    """How it shows that the model or the loss computes a NaN from finite data and weights; "" if it does not."""
    layers = diagnosis.layers.items()
    if name := next((name for name, layer in layers if layer.is_first_layer and not layer.finite_inputs), ""):
        return f"The data is finite, and what arrives at {shown(name)}, the first layer with weights, is not."
    if any(jump.step == 0 and jump.steps == 1 and not math.isfinite(jump.after) for jump in diagnosis.loss_jumps):
        return "The loss of the very first step was not finite: the model or the loss computes a NaN, or the weights had one."
    return ""


def _when_lost(loss_jumps: Iterable[LossJump]) -> str:
    """The step at which the loss became infinite or NaN for good: the last such jump, because none follows it."""
    last = max((jump for jump in loss_jumps if not math.isfinite(jump.after)), default=None)
    return "" if last is None else f"At training step {last.step:,} the {last.quantity} was no longer finite. "
