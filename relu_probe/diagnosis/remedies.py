"""The remedies: each has a trigger that was measured, an advice and a source, and is left out if the trigger fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from relu_probe.diagnosis.layer_diagnosis import LayerDiagnosis
from relu_probe.report.layer_history import LayerHistory
from relu_probe.report.layer_report import Counts, Mask
from relu_probe.report.loss_jumps import LossJump
from relu_probe.utils.foreign_text import shown

JUMP_RATIO = 2.0  # a loss of at least this multiple of the mean before it counts as a jump
STEPS_AFTER_JUMP = 5  # gradients stay large for a few steps after a jump
# A layer that is all dead at initialisation is blamed on its width if that has at least this probability.
NARROW_PROBABILITY = 0.01


@dataclass(frozen=True)
class SickLayer:
    """What is known about one layer with dead or blocked neurons.

    Args:
        diagnosis: the diagnosis of the layer.
        first_sick_layer: the name of the model's first sick layer, None if it is this one.
        relu_widths: the number of neurons of each ReLU layer up to and including this one.
        history: the history of its neurons, None without a probe.
        loss_jumps: the jumps of the training loss.
    """

    diagnosis: LayerDiagnosis
    first_sick_layer: str | None
    relu_widths: tuple[int, ...]
    history: LayerHistory | None
    loss_jumps: tuple[LossJump, ...]

    def deaths_at_loss_jump(self) -> tuple[Mask, Counts, LossJump] | None:
        """The dead neurons that were last active while the loss rose to one of its jumps or within a few steps after it.

        Returns:
            Their mask `(neurons,)`, the steps at which they were last active, and the jump with the most such neurons.
            None if they are fewer than two, or fewer than half of the dead neurons that were ever active.
        """
        last, dead = None if self.history is None else self.history.last_active, self.diagnosis.report.dead
        jumps = [jump for jump in self.loss_jumps if jump.ratio >= JUMP_RATIO]
        if last is None or len(last) != len(dead) or not jumps:
            return None
        starts = [jump.step if jump.since is None else jump.since for jump in jumps]
        died = dead & (last >= 0)  # a neuron that was never active was killed by no step
        masks = [
            died & (last >= start - 1) & (last < jump.step + jump.steps + STEPS_AFTER_JUMP)
            for start, jump in zip(starts, jumps)
        ]
        mask, jump = max(zip(masks, jumps), key=lambda pair: (np.count_nonzero(pair[0]), pair[1].ratio))
        count = np.count_nonzero(mask)
        return (mask, last[mask], jump) if count >= 2 and 2 * count >= np.count_nonzero(died) else None

    def neurons_with_cause(self, cause: str) -> Mask:
        """`(neurons,)`: the neurons with this cause, except those that died at a jump of the loss.

        Before the jump those were well, so that no remedy for the cause would have saved them.
        """
        mask = self.diagnosis.cause == cause
        return np.asarray(mask & ~deaths[0] if (deaths := self.deaths_at_loss_jump()) else mask)

    def born_dead_among(self, mask: Mask) -> Mask:
        """The neurons of `mask` that were born dead, as far as known: their initialisation may be to blame."""
        if self.history is None or len(self.history.born_dead) != len(mask):
            return mask
        return mask & (self.history.born_dead | self.history.never_active)


class Remedy(NamedTuple):
    """`trigger` returns the finding in words, with its numbers, or None if the remedy does not apply."""

    trigger: Callable[[SickLayer], str | None]
    advice: str
    source: str


def _died_at_loss_jump(layer: SickLayer) -> str | None:
    if (deaths := layer.deaths_at_loss_jump()) is None:
        return None
    mask, last_active, jump = deaths
    return (
        f"{np.count_nonzero(mask):,} of the {np.count_nonzero(layer.diagnosis.report.dead):,} dead neurons were last active "
        f"at training {steps_text(last_active)}, and at {steps_text(np.arange(jump.step, jump.step + jump.steps))} "
        f"the loss jumped from {jump.before:.3g} to {jump.after:.3g}."
    )


def _bias_too_low(layer: SickLayer) -> str | None:
    return _offset_too_low(layer, "the bias", "holds")


def _beta_too_low(layer: SickLayer) -> str | None:
    return _offset_too_low(layer, "beta and the moving mean of BatchNormalization", "hold")


def _offset_too_low(layer: SickLayer, offset: str, verb: str) -> str | None:
    mask = layer.born_dead_among(layer.neurons_with_cause("bias"))
    if not np.any(mask) or layer.diagnosis.offset_description != offset:
        return None
    return f"{offset} {verb} down {_neurons(mask)}, which some sample would make fire."


def _threshold_too_high(layer: SickLayer) -> str | None:
    mask, offset = layer.neurons_with_cause("bias"), layer.diagnosis.offset_description
    return f"{offset} hold down {_neurons(mask)}." if np.any(mask) and "the threshold" in offset else None


def _one_sided_inputs(layer: SickLayer) -> str | None:
    mask, diagnosis = layer.neurons_with_cause("weights"), layer.diagnosis
    if not np.any(mask) or not diagnosis.is_first_layer or not diagnosis.lowest_input >= 0:
        return None
    return (
        f"no input of this first layer is negative (the smallest is {diagnosis.lowest_input:.3g}), and in "
        f"{_neurons(mask)} w.x <= 0 on all samples."
    )


def _born_dead_and_narrow(layer: SickLayer) -> str | None:
    history, dead = layer.history, layer.diagnosis.report.dead
    if history is None or not dead.all() or history.ever_active.any() or np.any(layer.diagnosis.cause == "bias"):
        return None
    probability = 1 - prod(1 - 2.0**-width for width in layer.relu_widths)
    if probability < NARROW_PROBABILITY:
        return None
    return (
        f"the whole layer was {'born dead' if history.born_dead.all() else 'never active in this fit'}. One-sided inputs, zero bias, layers of {', '.join(map(str, layer.relu_widths))} "
        f"ReLUs: at initialisation one of these layers is all dead with probability {probability:.3g}."
    )


def _no_input(layer: SickLayer) -> str | None:
    mask = layer.neurons_with_cause("input")
    if not np.any(mask) or layer.first_sick_layer is None:
        return None
    return f"nothing but zeros reaches {_neurons(mask)}. The first sick layer is {shown(layer.first_sick_layer)}."


def _blocked_by_loss(layer: SickLayer) -> str | None:
    return _blocked(layer, "loss", "no gradient leaves the loss for {neurons}.")


def _saturated(layer: SickLayer) -> str | None:
    return _blocked(layer, "saturated", "whenever active, {neurons} {are} at the ceiling of the bounded ReLU.")


def _no_outgoing_weights(layer: SickLayer) -> str | None:
    return _blocked(layer, "outgoing", "all outgoing weights of {neurons} are zero.")


def _blocked_downstream(layer: SickLayer) -> str | None:
    return _blocked(layer, "downstream", "all units that receive the output of {neurons} are dead or blocked.")


def _blocked(layer: SickLayer, cause: str, finding: str) -> str | None:
    mask = layer.neurons_with_cause(cause)
    are = "is" if np.count_nonzero(mask) == 1 else "are"
    return finding.format(neurons=_neurons(mask), are=are) if np.any(mask) else None


def steps_text(steps: Counts) -> str:
    """Returns "step 7", or "steps 7 to 9" of the first and the last."""
    first, last = int(steps.min()), int(steps.max())
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def _neurons(mask: Mask) -> str:
    count = np.count_nonzero(mask)
    return f"{count:,} neuron{'' if count == 1 else 's'}"


REMEDIES = (
    Remedy(
        _died_at_loss_jump,
        "Lower the learning rate, or clip the gradients (clipnorm=1.0 in the optimizer).",
        "Pascanu et al. 2013, arXiv:1211.5063",
    ),
    Remedy(
        _bias_too_low,
        "Initialise the bias at zero or at a small positive value, such as 0.1.",
        "Goodfellow et al. 2016, Deep Learning, section 6.3.1",
    ),
    Remedy(
        _beta_too_low,
        "Initialise beta at zero; compare the moving mean with the mean of the data that the model sees now.",
        "Ioffe and Szegedy 2015, arXiv:1502.03167",
    ),
    Remedy(
        _threshold_too_high,
        "Lower the threshold of the ReLU.",
        "by definition: the threshold is subtracted from the bias",
    ),
    Remedy(
        _one_sided_inputs,
        "Standardise the inputs: subtract from each its mean over the training data, divide by its standard deviation.",
        "LeCun et al. 1998, Efficient BackProp, section 4.3",
    ),
    Remedy(
        _born_dead_and_narrow,
        "Widen the layers, or initialise them differently (randomized asymmetric initialization).",
        "Lu et al. 2019, arXiv:1903.06733",
    ),
    Remedy(
        _no_input,
        "Look there first: the death of these neurons follows from it.",
        "by definition: z = b wherever the input is zero",
    ),
    Remedy(
        _blocked_by_loss,
        "Look at the loss, its weights and the labels: the network passes on the gradient that it gets.",
        "measured: dL/dy = 0",
    ),
    Remedy(
        _saturated, "Use an unbounded ReLU, or smaller weights before it.", "by definition: relu'(z) = 0 at the ceiling"
    ),
    Remedy(
        _no_outgoing_weights,
        "Initialise the weights of the next layer at random, not at zero.",
        "Goodfellow et al. 2016, Deep Learning, section 8.4",
    ),
    Remedy(
        _blocked_downstream,
        "Look at the next layers: these neurons are blocked because of them.",
        "by definition: dL/da is a sum over what a feeds",
    ),
)
