"""Why is a neuron dead, or blocked? The definitions, in their order: the first that applies. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.layer_report import Floats, LayerReport, Mask

DEAD = ("input", "bias", "weights")
BLOCKED = ("loss", "saturated", "outgoing", "downstream")
UNKNOWN = "unknown"

Causes = NDArray[np.str_]


@dataclass(frozen=True)
class Evidence:
    """What was seen of one layer, over all the data; `(neurons,)` each, None where the structure does not show it.

    Args:
        margin: the largest z: how far from firing; nan where not known.
        pushed: the largest w.x, without bias; nan where not known.
        reached: an input that is not zero reached the neuron.
        below_ceiling: it was active somewhere below the ceiling of a bounded ReLU.
        no_loss_gradient: no gradient left the loss for what the neuron leads to; None without gradients.
        no_outgoing: all its outgoing weights are zero.
        no_downstream: all that it feeds is dead or blocked.
        fired: samples on which the neuron fired, of `samples`.
    """

    margin: Floats
    pushed: Floats
    reached: Mask | None
    below_ceiling: Mask
    no_loss_gradient: Mask | None
    no_outgoing: Mask | None
    no_downstream: Mask | None
    fired: NDArray[np.int64]
    samples: int


def causes(layer: LayerReport, evidence: Evidence) -> Causes:
    """`(neurons,)`, exactly one cause for each dead or blocked neuron, "" for the others.

    A dead neuron: `input` where nothing but zeros reaches it, `bias` where some sample has w.x > 0, else `weights`. A
    blocked one: `loss`, `saturated`, `outgoing`, `downstream`. `unknown` where the structure is not visible.
    """
    found = np.full(layer.neurons, "", "<U10")
    found[layer.dead] = _dead(evidence)[layer.dead]
    if (blocked := layer.blocked) is not None:
        found[blocked] = _blocked(evidence, layer.neurons)[blocked]
    return found


def _dead(evidence: Evidence) -> Causes:
    if evidence.reached is None:
        return np.full(len(evidence.margin), UNKNOWN, "<U10")
    return np.select([~evidence.reached, evidence.pushed > 0, evidence.pushed <= 0], DEAD, UNKNOWN)


def _blocked(evidence: Evidence, neurons: int) -> Causes:
    masks = (evidence.no_loss_gradient, ~evidence.below_ceiling, evidence.no_outgoing, evidence.no_downstream)
    known = [np.zeros(neurons, bool) if mask is None else mask for mask in masks]
    return np.select(known, BLOCKED, UNKNOWN)
