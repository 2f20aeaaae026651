"""Triggers of the advice that look at the training: when the neurons died, and what happened then. NumPy only."""

from __future__ import annotations

import numpy as np

from relu_probe.diagnosis.causes import UNKNOWN
from relu_probe.diagnosis.finding import Finding, neurons, own, steps
from relu_probe.diagnosis.layer_sentences import never_active
from relu_probe.diagnosis.sick_layer import FIRST_STEPS, MANY_LATER, SickLayer
from relu_probe.report.layer_report import Mask

# A layer that is all dead at initialisation is blamed on its width if that has at least this probability.
NARROW_PROBABILITY = 0.01


def regularizer(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Died in the training of a layer that has a regulariser."""
    mask = own(layer, claimed) & layer.died_in_training()
    return Finding(mask, f"{neurons(mask)} died under {named}.") if (named := layer.diagnosis.regularizers) else None


def batchnorm_lag(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Dead in inference mode only, behind a BatchNormalization."""
    if not layer.diagnosis.behind_batch_norm:
        return None
    mask = own(layer, claimed) & layer.fires_in_training_only()
    return Finding(mask, f"{neurons(mask)} fired in the last epoch's training steps and not here, in inference mode.")


def learning_rate(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Died at a jump of the loss, or many at once in the first steps."""
    free = layer.dead & ~layer.with_cause("input", "zero weights") & ~claimed
    if (deaths := layer.deaths_at_loss_jump()) is not None and np.any(mask := deaths[0] & free):
        _, last, jump = deaths
        return Finding(
            mask,
            f"{np.count_nonzero(mask):,} of the {np.count_nonzero(layer.dead):,} dead neurons were last active at training "
            f"{steps(last)}, and at {steps(np.arange(jump.step, jump.step + jump.steps))} the {jump.quantity} jumped from "
            f"{jump.before:.3g} to {jump.after:.3g}.",
        )
    if np.any(mask := layer.deaths_in_first_steps() & free):
        return Finding(mask, f"{neurons(mask)} died in the first {FIRST_STEPS} steps of the training.")
    if (in_epoch := layer.deaths_in_first_or_jumping_epoch()) is not None and np.any(mask := in_epoch[0] & free):
        return Finding(
            mask, f"{neurons(mask)}, alive before, died in epoch {in_epoch[1]}{_jumped(layer, in_epoch[1])}."
        )
    return None


def _jumped(layer: SickLayer, epoch: int) -> str:
    jump = max((j for j in layer.large_jumps() if j.epoch == epoch), key=lambda j: j.ratio, default=None)
    return "" if jump is None else f", in which the {jump.quantity} jumped from {jump.before:.3g} to {jump.after:.3g}"


def trained_down(layer: SickLayer, claimed: Mask) -> Finding | None:
    """Died in the training, or has a bias that the training moved below zero."""
    free, diagnosis = own(layer, claimed), layer.diagnosis
    fired = (free | layer.with_cause(UNKNOWN) & ~claimed) & layer.died_in_training()
    if np.any(mask := layer.if_many(fired, MANY_LATER)):
        return Finding(
            mask, f"{neurons(mask)} fired earlier in the training, which then moved the weights or the bias down."
        )
    if diagnosis.initial_offset is None or diagnosis.offset is None or diagnosis.initial_offset < 0:
        return None
    mask = layer.if_many(layer.with_cause("bias") & free & (diagnosis.offset < 0), MANY_LATER)
    return Finding(
        mask,
        f"the initialiser of the bias gives {diagnosis.initial_offset:.3g}; that of {neurons(mask)} is now below zero.",
    )


def narrow(layer: SickLayer, claimed: Mask) -> Finding | None:
    """A whole narrow layer that was never active."""
    history = layer.history
    if history is None or history.ever_active.any():
        return None
    if not layer.dead.all() or layer.diagnosis.is_output or not layer.with_cause("weights").all():
        return None
    if (probability := layer.born_dead_by_width()) < NARROW_PROBABILITY:
        return None
    born = "born dead" if history.born_dead.all() else never_active(history)
    widths = ", ".join(map(str, layer.relu_widths))
    return Finding(
        layer.dead,
        f"the whole layer was {born}. One-sided inputs, zero bias, layers of {widths} "
        f"ReLUs: at initialisation one of these layers is all dead with probability {probability:.3g}.",
    )
