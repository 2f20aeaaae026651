"""The causes of dead and blocked neurons: their definitions, in the order in which the first that applies is taken.

NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.layer_report import Floats, LayerReport, Mask

DEAD = ("input", "zero weights", "bias", "weights")
BLOCKED = ("path", "loss", "saturated", "outgoing", "downstream", "disjoint")
UNKNOWN = "unknown"

Causes = NDArray[np.str_]


@dataclass(frozen=True)
class Evidence:
    """What all the data showed of one layer. Every array is `(neurons,)`; None if the structure does not show it.

    Args:
        margin: the largest z, that is the distance from firing; nan if unknown.
        largest_product: the largest w.x, without the bias; nan if unknown.
        receives_input: an input that is not zero reached the neuron.
        has_weights: some weight of the neuron is not zero.
        no_path: no path leads from the loss to the neuron; None without gradients.
        below_ceiling: the neuron was active at least once below the ceiling of a bounded ReLU.
        no_loss_gradient: no gradient left the loss for the outputs that depend on the neuron; None without gradients.
        no_outgoing: all outgoing weights of the neuron are zero.
        no_downstream: all units that receive the neuron's output are dead or blocked.
        only_relus: all units that receive the neuron's output are of ReLUs whose gradients are counted.
        fired: the number of samples on which the neuron fired.
        samples: the number of all samples.
    """

    margin: Floats
    largest_product: Floats
    receives_input: Mask | None
    has_weights: Mask
    no_path: Mask | None
    below_ceiling: Mask
    no_loss_gradient: Mask | None
    no_outgoing: Mask | None
    no_downstream: Mask | None
    only_relus: Mask | None
    fired: NDArray[np.int64]
    samples: int

    @classmethod
    def without_structure(cls, layer: LayerReport, no_loss_gradient: Mask | None) -> Evidence:
        """The evidence of a ReLU of which nothing but its counts is known: it fired on at most as many samples as positions."""
        unknown, yes = np.full(layer.neurons, np.nan), np.ones(layer.neurons, bool)
        fired = np.minimum(layer.active, layer.samples)
        return cls(unknown, unknown, None, yes, None, yes, no_loss_gradient, None, None, None, fired, layer.samples)


def causes(layer: LayerReport, evidence: Evidence) -> Causes:
    """`(neurons,)` of str: exactly one cause for each dead or blocked neuron, "" for the others.

    A dead neuron: `input` if only zeros reach it, else `zero weights` if it has no other weights, else `bias` if some sample
    has w.x > 0, else `weights`. A blocked neuron: the first of `path`, `loss`, `saturated`, `outgoing` and `downstream` that
    applies; `disjoint` if none does and the neuron feeds ReLUs only: wherever it fires, none of them passes a gradient on.
    `unknown` if the structure of the model does not show the cause.
    """
    found = np.full(layer.neurons, "", "<U12")
    found[layer.dead] = _causes_of_death(evidence)[layer.dead]
    if (blocked := layer.blocked) is not None:
        found[blocked] = _causes_of_blocking(evidence, layer.neurons)[blocked]
    return found


def _causes_of_death(evidence: Evidence) -> Causes:
    if evidence.receives_input is None:
        return np.full(len(evidence.margin), UNKNOWN, "<U12")
    product = evidence.largest_product
    return np.select([~evidence.receives_input, ~evidence.has_weights, product > 0, product <= 0], DEAD, UNKNOWN)


def _causes_of_blocking(evidence: Evidence, neurons: int) -> Causes:
    masks = (
        *(evidence.no_path, evidence.no_loss_gradient),
        *(~evidence.below_ceiling, evidence.no_outgoing, evidence.no_downstream, evidence.only_relus),
    )
    return np.select([np.zeros(neurons, bool) if mask is None else mask for mask in masks], BLOCKED, UNKNOWN)
