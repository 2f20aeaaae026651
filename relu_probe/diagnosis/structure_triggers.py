"""Triggers of the advice that look at a layer's inputs, weights and place in the model. NumPy only."""

from __future__ import annotations

import numpy as np

from relu_probe.diagnosis.advice import offset_words
from relu_probe.diagnosis.finding import Finding, neurons, own
from relu_probe.diagnosis.sick_layer import SickLayer
from relu_probe.diagnosis.training_triggers import narrow
from relu_probe.report.layer_report import Mask
from relu_probe.utils.foreign_text import shown_names

OFF_CENTRE = 1.0  # inputs whose mean is larger than their deviation lie on one side of most planes through zero
LARGE = 10.0  # the root mean square of inputs or targets, above which a step of the usual size throws a layer far
_STANDARDISE = "Standardise the inputs (keras.layers.Normalization): mean 0 and deviation 1 over the training data."
_CENTRE = "Centre what arrives at this layer, with a BatchNormalization before it."
_REVIVE = ", or bring the layer back with relu_probe.revive"


def dead_output(layer: SickLayer, claimed: Mask) -> Finding | None:
    """A ReLU that is an output of the model."""
    if not layer.diagnosis.is_output:
        return None
    mask, targets = own(layer, claimed), layer.diagnosis.targets
    reach = (
        "" if targets is None else f"; a ReLU cannot reach {targets[0]:,} of {targets[1]:,} targets, which are negative"
    )
    whole = "every prediction is 0" if mask.all() else f"every prediction of {neurons(mask)} is 0"
    softplus = {"softplus": ", or softplus"} if targets is not None and targets[0] == 0 else {}
    words = f"the layer is an output of the model: {whole}, and nothing can train it{reach}."
    return Finding(mask, words, softplus)


def zero_kernel(layer: SickLayer, claimed: Mask) -> Finding | None:
    """No weight but zero."""
    mask = layer.with_cause("zero weights")
    return Finding(mask, f"all incoming weights of {neurons(mask)} are zero.")


def zero_input(layer: SickLayer, claimed: Mask) -> Finding | None:
    """No input but zero, and no dead ReLU that is known to feed the layer."""
    if layer.feeders:
        return None
    mask, explains = layer.with_cause("input"), "no ReLU before explains it"
    if layer.unplaced:
        explains = (
            f"no ReLU explains it of those that are known to be before; {shown_names(layer.unplaced)} may, of which "
            "it is not known what it feeds"
        )
    return Finding(mask, f"nothing but zeros reaches {neurons(mask)}, and {explains}.")


def second_cause(layer: SickLayer, claimed: Mask) -> Finding | None:
    """No input but zero because of a layer before, and a bias that would not let the neuron fire without it either."""
    mask = layer.with_cause("input") & (layer.diagnosis.margin < 0)
    if not layer.feeders:
        return None
    return Finding(mask, f"without input, z of {neurons(mask)} is the bias, and that is below zero too.")


def bias_start(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Never fired, and the bias or beta was initialised below zero."""
    start, offset = layer.diagnosis.initial_offset, layer.diagnosis.offset_description
    if start is None or not start < 0:
        return None
    what = "beta" if "BatchNormalization" in offset else "the bias"
    mask = own(layer, claimed) & layer.dead_from_start()
    words = f"the initialiser of {what} starts below zero, at {start:.3g}, and holds down {neurons(mask)}."
    return Finding(mask, words, {"what": what})


def threshold(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Held down by the threshold of the ReLU."""
    offset = layer.diagnosis.offset_description
    mask = layer.with_cause("bias") & ~claimed
    return Finding(mask, f"{offset} hold down {neurons(mask)}.") if "the threshold" in offset else None


def large_inputs(layer: SickLayer, claimed: Mask) -> Finding | None:
    """A first layer whose inputs are large, and so its gradients."""
    size = layer.diagnosis.input_size
    if not layer.diagnosis.is_first_layer or not size > LARGE:
        return None
    words = (
        f"the inputs of this first layer are large: their root mean square is {size:.3g}. The gradients of its weights grow "
        "with them, and a rate that is right for others is too high."
    )
    return Finding(layer.if_many(own(layer, claimed)), words, {"remedy": _STANDARDISE})


def large_targets(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Large targets of a loss whose gradients grow with them."""
    mask = layer.if_many(own(layer, claimed))
    return Finding(mask, targets_words(layer.target_size)) if layer.target_size > LARGE else None


def targets_words(size: float) -> str:
    """How large the targets are, and what follows, in words."""
    return (
        f"The targets are large: their root mean square is {size:.3g}. The gradients of the loss grow with them, and a rate "
        "that is right for others is too high."
    )


def off_centre_inputs(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Inputs on one side of zero; behind the first layer, of neurons that no input switches on."""
    diagnosis, mask = layer.diagnosis, layer.if_many(own(layer, claimed))
    if not diagnosis.input_offset > OFF_CENTRE:
        return None
    off_centre = f"off centre: {offset_words(diagnosis.input_offset)}"
    if diagnosis.is_first_layer:
        return Finding(mask, f"the inputs of this first layer are {off_centre}.", {"remedy": _STANDARDISE})
    mask = mask & layer.with_cause("weights") & (narrow(layer, claimed) is None)
    return Finding(mask, f"what arrives at {neurons(mask)} of this layer is {off_centre}.", {"remedy": _CENTRE})


def cut(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Dead as a whole, and not because of another layer."""
    followers = bool(layer.feeders) and layer.with_cause("input").all()
    if not layer.dead.all() or followers:
        return None
    return Finding(
        layer.dead,
        "the layer is dead as a whole: no gradient passes through it, so that neither its weights nor those that only it "
        "connects with the loss can change any more.",
        {"revive": _REVIVE} if layer.diagnosis.revivable else {},
    )


def no_path(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Blocked by a stop_gradient, or an output without a loss."""
    mask = layer.with_cause("path")
    return Finding(mask, f"no path leads from the loss to {neurons(mask)}.")


def loss(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Blocked because no gradient leaves the loss."""
    mask = layer.with_cause("loss")
    return Finding(mask, f"no gradient leaves the loss for {neurons(mask)}.")


def saturated(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Always at the ceiling."""
    mask = layer.with_cause("saturated")
    are = "is" if np.count_nonzero(mask) == 1 else "are"
    return Finding(mask, f"whenever active, {neurons(mask)} {are} at the ceiling of the bounded ReLU.")


def outgoing(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Blocked by outgoing weights of zero."""
    mask = layer.with_cause("outgoing")
    return Finding(mask, f"all outgoing weights of {neurons(mask)} are zero.")
