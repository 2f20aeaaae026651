"""Messages about NaN: what a fit prints once, and where a diagnosis finds their origin. Free of TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from relu_probe.report.loss_jumps import LossJump
from relu_probe.report.report import Report
from relu_probe.report.text_table import wrapped
from relu_probe.utils.foreign_text import shown


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
        f"relu_probe: NaN {when} at {sum(counts.values()):,} of {neurons:,} neurons, first in layer {shown(next(iter(counts)))}, "
        "counted neither as active nor as dead. More: print(diagnose(model, data, probe=probe))"
    )
    return "\n".join(wrapped(line))


def nan_remedies(finite_data: bool, first_nonfinite_weight: str, loss_jumps: Iterable[LossJump]) -> list[str]:
    """Where the NaN of the ReLU layers come from, as far as it shows, and what to do.

    Args:
        finite_data: no NaN and no infinity is in the data, labels included.
        first_nonfinite_weight: the path of the first weight with a NaN or an infinity, "" if there is none.
        loss_jumps: the jumps of the training loss, empty without a probe.
    """
    found = []
    if not finite_data:
        found.append(
            "-> The data contains NaN or infinities. Clean it, labels included, until np.isfinite(x).all() is True. "
            "[by definition: what is computed from a NaN is a NaN]"
        )
    if first_nonfinite_weight:
        found.append(
            f"-> The weights contain NaN or infinities, first in {shown(first_nonfinite_weight)}. {_when_lost(loss_jumps)}No "
            "training takes that back: load weights from before, and lower the learning rate or clip the gradients "
            "(clipnorm=1.0 in the optimizer), unless the model was trained on NaN. "
            "[Pascanu et al. 2013, arXiv:1211.5063]"
        )
    return found or [
        "-> The weights and the data are finite. Look at what comes before the first layer with NaN: a division by zero, a "
        "logarithm, sums that overflow. [by definition: 0 / 0 and inf - inf are NaN]"
    ]


def _when_lost(loss_jumps: Iterable[LossJump]) -> str:
    """The step at which the loss became infinite or NaN for good: the last such jump, because none follows it."""
    lost = [jump for jump in loss_jumps if not math.isfinite(jump.after)]
    return f"At training step {max(lost).step:,} the loss was no longer finite. " if lost else ""
