"""Where do NaN come from, and what follows? Read off a diagnosis, or the reports of a fit."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from relu_probe.report import Report
from relu_probe.table import WIDTH

if TYPE_CHECKING:
    from relu_probe.diagnosis import Diagnosis, LayerDiagnosis

_FIX = {
    "data": "Clean it: np.isfinite(x).all() has to hold. [by definition: what is computed from a NaN is a NaN]",
    "weights": (
        "No training takes that back: load weights from before, and lower the learning rate, or clip the gradients "
        "(clipnorm=1.0 in the optimizer). [Pascanu et al. 2013, arXiv:1211.5063]"
    ),
    "between": (
        "Look at what comes before it: a division by zero, a logarithm, infinities that meet. "
        "[by definition: 0 / 0 and inf - inf are NaN]"
    ),
}


def nan_line(report: Report) -> str:
    """What a fit says once, "" where there is none: a dead fraction of 0 does not show them.

    >>> from relu_probe.report import LayerReport
    >>> spoilt = LayerReport(samples=2, positions=2, active=[0, 2], nan=[True, False])
    >>> print(nan_line(Report({"hidden": spoilt}, epoch=3)))
    relu_probe: NaN in epoch 3, at 1 of 2 neurons, first in layer hidden. They are
    neither active nor dead. More: print(diagnose(model, data, probe=probe))
    """
    spoilt = {name: np.count_nonzero(layer.nan) for name, layer in report.layers.items() if np.any(layer.nan)}
    if not spoilt:
        return ""
    neurons = sum(layer.neurons for layer in report.layers.values())
    return textwrap.fill(
        f"relu_probe: NaN in epoch {report.epoch}, at {sum(spoilt.values()):,} of {neurons:,} neurons, first in layer "
        f"{next(iter(spoilt))}. They are neither active nor dead. More: print(diagnose(model, data, probe=probe))",
        WIDTH,
    )


def nan_remedies(diagnosis: Diagnosis) -> list[str]:
    """Of the first layer with NaN: those behind it follow from it."""
    name = next((name for name, layer in diagnosis.layers.items() if np.any(layer.report.nan)), None)
    if name is None:
        return []
    layer, found = diagnosis.layers[name], []
    if not diagnosis.finite_data:
        found.append(f"-> The data has NaN or infinities in it. {_FIX['data']}")
    if np.any(layer.nan_weights):
        found.append(f"-> {_weights(name, layer)} {_since(diagnosis)}{_FIX['weights']}")
    return found or [f"-> {name} is the first layer with NaN; its weights and the data have none. {_FIX['between']}"]


def _weights(name: str, layer: LayerDiagnosis) -> str:
    return (
        f"{name} is the first layer with NaN: they are among the weights of {np.count_nonzero(layer.nan_weights):,} of its "
        f"{layer.report.neurons:,} neurons."
    )


def _since(diagnosis: Diagnosis) -> str:
    """When a probe saw the loss turn infinite or NaN."""
    lost = [jump for jump in diagnosis.jumps if not math.isfinite(jump.after)]
    return f"At training step {min(lost).step:,} the loss was no finite number any more. " if lost else ""
