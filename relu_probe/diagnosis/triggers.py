"""The triggers of the advice, in the order in which the advice is given, and what they find in one sick layer. NumPy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from relu_probe.diagnosis import structure_triggers as structure
from relu_probe.diagnosis import training_triggers as training
from relu_probe.diagnosis.finding import Finding, neurons
from relu_probe.diagnosis.sick_layer import MANY_LATER, SickLayer
from relu_probe.report.layer_report import Mask

# Each trigger may claim neurons; a neuron that one trigger has claimed is left to it.
Trigger = Callable[[SickLayer, Mask], Finding | None]

# kind, trigger, whether the neurons that it finds are left to it. The order is that of the advice.
_TRIGGERS: tuple[tuple[str, Trigger, bool], ...] = (
    ("zero_input", structure.zero_input, False),
    ("zero_kernel", structure.zero_kernel, False),
    ("threshold", structure.threshold, True),
    ("bias_start", structure.bias_start, True),
    ("dead_output", structure.dead_output, True),
    ("regularizer", training.regularizer, True),
    ("batchnorm_lag", training.batchnorm_lag, True),
    ("inputs", structure.large_inputs, True),
    ("targets", structure.large_targets, False),
    ("learning_rate", training.learning_rate, True),
    ("trained_down", training.trained_down, True),
    ("inputs", structure.off_centre_inputs, False),
    ("narrow", training.narrow, True),
    ("second_cause", structure.second_cause, False),
    ("no_path", structure.no_path, False),
    ("loss", structure.loss, False),
    ("saturated", structure.saturated, False),
    ("outgoing", structure.outgoing, False),
    ("cut", structure.cut, False),
)


def findings_of(layer: SickLayer) -> list[Finding]:
    """All that the measurements of one layer advise, in the order in which to mend it.

    Neurons that no trigger finds and no other layer makes sick get the general advice, if they are many.
    """
    found: list[Finding] = []
    claimed, left = np.zeros_like(layer.dead), layer.own
    for kind, trigger, exclusive in _TRIGGERS:
        finding = trigger(layer, claimed)
        if finding is not None and np.any(finding.neurons):
            found.append(replace(finding, kind=kind))
            left = left & ~finding.neurons if kind != "cut" else left
            claimed = claimed | finding.neurons if exclusive else claimed
    if np.any(left := layer.if_many(left, MANY_LATER)):
        found.append(Finding(left, f"nothing that was measured says why {neurons(left)} became so.", kind="general"))
    return sorted(found, key=lambda finding: finding.kind == "cut")
