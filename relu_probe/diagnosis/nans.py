"""Where do NaN come from, and what follows? Read off a diagnosis, or the reports of a fit."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from relu_probe.report.report import Report
from relu_probe.report.table import WIDTH

if TYPE_CHECKING:
    from relu_probe.diagnosis.diagnose import Diagnosis


def nan_line(report: Report) -> str:
    """What a fit says once, "" where there is none: a dead fraction of 0 does not show them.

    >>> from relu_probe.report.layer_report import LayerReport
    >>> spoilt = LayerReport(samples=2, positions=2, active=[0, 2], nan=[True, False])
    >>> print(nan_line(Report({"hidden": spoilt}, epoch=3)))
    relu_probe: NaN in epoch 3, at 1 of 2 neurons, first in layer hidden. They are
    neither active nor dead. More: print(diagnose(model, data, probe=probe))
    """
    spoilt = {name: np.count_nonzero(layer.nan) for name, layer in report.layers.items() if np.any(layer.nan)}
    if not spoilt:
        return ""
    neurons = sum(layer.neurons for layer in report.layers.values())
    when = "before the first step" if report.epoch == -1 else f"in epoch {report.epoch}"
    return textwrap.fill(
        f"relu_probe: NaN {when}, at {sum(spoilt.values()):,} of {neurons:,} neurons, first in layer "
        f"{next(iter(spoilt))}. They are neither active nor dead. More: print(diagnose(model, data, probe=probe))",
        WIDTH,
    )


def nan_remedies(diagnosis: Diagnosis) -> list[str]:
    """Where the NaN of the ReLU layers come from, as far as it shows, and what to do."""
    if not any(np.any(layer.report.nan) for layer in diagnosis.layers.values()):
        return []
    found = []
    if not diagnosis.finite_data:
        found.append(
            "-> The data has NaN or infinities in it. Clean it, labels included: np.isfinite(x).all() has to hold. "
            "[by definition: what is computed from a NaN is a NaN]"
        )
    if diagnosis.first_nonfinite_weight:
        found.append(
            f"-> NaN or infinities are in the weights, first in {diagnosis.first_nonfinite_weight}. {_since(diagnosis)}No training takes "
            "that back: load weights from before, and lower the learning rate or clip the gradients (clipnorm=1.0 in the "
            "optimizer), unless it was trained on NaN. [Pascanu et al. 2013, arXiv:1211.5063]"
        )
    return found or [
        "-> The weights and the data are finite. Look at what comes before the first layer with NaN: a division by zero, a "
        "logarithm, sums that overflow. [by definition: 0 / 0 and inf - inf are NaN]"
    ]


def _since(diagnosis: Diagnosis) -> str:
    """When a probe saw the loss turn infinite or NaN for good: the newest of such jumps, for none follows it."""
    lost = [jump for jump in diagnosis.loss_jumps if not math.isfinite(jump.after)]
    return f"At training step {max(lost).step:,} the loss was no finite number any more. " if lost else ""
