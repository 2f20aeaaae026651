"""The triggers of the advice: rules that find, in the measurements of one sick layer, what is to be mended. NumPy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from relu_probe.diagnosis.advice import offset_words
from relu_probe.diagnosis.sick_layer import FIRST_STEPS, SickLayer
from relu_probe.report.layer_report import Counts, Mask
from relu_probe.utils.wording import number

# A layer that is all dead at initialisation is blamed on its width if that has at least this probability.
NARROW_PROBABILITY = 0.01
OFF_CENTRE = 1.0  # inputs whose mean is larger than their deviation lie on one side of most planes through zero


@dataclass(frozen=True)
class Finding:
    """An advice for one layer."""

    kind: str
    neurons: Mask
    words: str


# Each rule claims neurons; a neuron that one rule of a group has claimed is left to it.
Rule = Callable[[SickLayer, Mask], "tuple[Mask, str] | None"]


def _own(layer: SickLayer, claimed: Mask) -> Mask:
    """Dead neurons whose own bias or weights keep z <= 0, and that no rule before has claimed."""
    return layer.with_cause("bias", "weights") & ~claimed


def _dead_output(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    if not layer.diagnosis.is_output:
        return None
    mask, targets = _own(layer, claimed), layer.diagnosis.targets
    reach = (
        "" if targets is None else f"; a ReLU cannot reach {targets[0]:,} of {targets[1]:,} targets, which are negative"
    )
    whole = "every prediction is 0" if mask.all() else f"every prediction of {neurons(mask)} is 0"
    return mask, f"the layer is an output of the model: {whole}, and nothing can train it{reach}."


def _zero_kernel(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    mask = layer.with_cause("zero weights")
    return mask, f"all incoming weights of {neurons(mask)} are zero."


def _zero_input(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    mask = layer.with_cause("input")
    return (
        None if layer.feeders else (mask, f"nothing but zeros reaches {neurons(mask)}, and no ReLU before explains it.")
    )


def _second_cause(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    mask = layer.with_cause("input") & (layer.diagnosis.margin < 0)
    if not layer.feeders:
        return None
    return mask, f"without input, z of {neurons(mask)} is the bias, and that is below zero too."


def _regularizer(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    mask = _own(layer, claimed) & layer.died_in_training()
    return (mask, f"{neurons(mask)} died under {named}.") if (named := layer.diagnosis.regularizers) else None


def _bias_start(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    start, offset = layer.diagnosis.initial_offset, layer.diagnosis.offset_description
    if start is None or not start < 0:
        return None
    what = "beta" if "BatchNormalization" in offset else "the bias"
    mask = _own(layer, claimed) & layer.dead_from_start()
    return mask, f"the initialiser of {what} starts below zero, at {start:.3g}, and holds down {neurons(mask)}."


def _batchnorm_lag(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    if not layer.diagnosis.behind_batch_norm:
        return None
    mask = _own(layer, claimed) & layer.fires_in_training_only()
    return mask, f"{neurons(mask)} fired in the last epoch's training steps and not here, in inference mode."


def _learning_rate(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    own = layer.dead & ~layer.with_cause("input", "zero weights") & ~claimed
    if (deaths := layer.deaths_at_loss_jump()) is not None and np.any(mask := deaths[0] & own):
        _, last, jump = deaths
        return mask, (
            f"{np.count_nonzero(mask):,} of the {np.count_nonzero(layer.dead):,} dead neurons were last active at training "
            f"{steps(last)}, and at {steps(np.arange(jump.step, jump.step + jump.steps))} the {jump.quantity} jumped from "
            f"{jump.before:.3g} to {jump.after:.3g}."
        )
    if np.any(mask := layer.deaths_in_first_steps() & own):
        return mask, f"{neurons(mask)} died in the first {FIRST_STEPS} steps of the training."
    if (epoch_deaths := layer.deaths_in_first_or_jumping_epoch()) is not None and np.any(mask := epoch_deaths[0] & own):
        return mask, f"{neurons(mask)}, alive before, died in epoch {epoch_deaths[1]}{_jumped(layer, epoch_deaths[1])}."
    return None


def _jumped(layer: SickLayer, epoch: int) -> str:
    jump = max((j for j in layer.large_jumps() if j.epoch == epoch), key=lambda j: j.ratio, default=None)
    return "" if jump is None else f", in which the {jump.quantity} jumped from {jump.before:.3g} to {jump.after:.3g}"


def _trained_down(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    own, diagnosis = _own(layer, claimed), layer.diagnosis
    if np.any(mask := own & layer.died_in_training()):
        return mask, f"{neurons(mask)} fired earlier in the training, which then moved the weights or the bias down."
    if diagnosis.initial_offset is None or diagnosis.offset is None or diagnosis.initial_offset < 0:
        return None
    mask = layer.with_cause("bias") & own & (diagnosis.offset < 0)
    return (
        mask,
        f"the initialiser of the bias gives {diagnosis.initial_offset:.3g}; that of {neurons(mask)} is now below zero.",
    )


def _inputs(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    offset = layer.diagnosis.input_offset
    if not layer.diagnosis.is_first_layer or not offset > OFF_CENTRE:
        return None
    mask = _own(layer, claimed)
    return mask, f"the inputs of this first layer are off centre: {offset_words(offset)}."


def _narrow(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    history = layer.history
    if history is None or history.ever_active.any():
        return None
    if not layer.dead.all() or layer.diagnosis.is_output or not layer.with_cause("weights").all():
        return None
    if (probability := layer.born_dead_by_width()) < NARROW_PROBABILITY:
        return None
    return layer.dead, (
        f"the whole layer was {'born dead' if history.born_dead.all() else 'never active in this fit'}. One-sided inputs, zero bias, layers of {', '.join(map(str, layer.relu_widths))} "
        f"ReLUs: at initialisation one of these layers is all dead with probability {probability:.3g}."
    )


def _threshold(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    offset = layer.diagnosis.offset_description
    mask = layer.with_cause("bias") & ~claimed
    return (mask, f"{offset} hold down {neurons(mask)}.") if "the threshold" in offset else None


def _cut(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    followers = bool(layer.feeders) and layer.with_cause("input").all()
    if not layer.dead.all() or followers:
        return None
    return layer.dead, (
        "the layer is dead as a whole: no gradient passes through it, so that neither its weights nor those that only it "
        "connects with the loss can change any more."
    )


def _no_path(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    mask = layer.with_cause("path")
    return mask, f"no path leads from the loss to {neurons(mask)}."


def _loss(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    mask = layer.with_cause("loss")
    return mask, f"no gradient leaves the loss for {neurons(mask)}."


def _saturated(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    mask = layer.with_cause("saturated")
    are = "is" if np.count_nonzero(mask) == 1 else "are"
    return mask, f"whenever active, {neurons(mask)} {are} at the ceiling of the bounded ReLU."


def _outgoing(layer: SickLayer, claimed: Mask) -> tuple[Mask, str] | None:
    mask = layer.with_cause("outgoing")
    return mask, f"all outgoing weights of {neurons(mask)} are zero."


# kind, rule, whether the neurons that it finds are left to it. The order is that of the advice.
_RULES: tuple[tuple[str, Rule, bool], ...] = (
    ("zero_input", _zero_input, False),
    ("zero_kernel", _zero_kernel, False),
    ("threshold", _threshold, True),
    ("bias_start", _bias_start, True),
    ("dead_output", _dead_output, True),
    ("regularizer", _regularizer, True),
    ("batchnorm_lag", _batchnorm_lag, True),
    ("learning_rate", _learning_rate, True),
    ("trained_down", _trained_down, True),
    ("inputs", _inputs, False),
    ("narrow", _narrow, True),
    ("second_cause", _second_cause, False),
    ("no_path", _no_path, False),
    ("loss", _loss, False),
    ("saturated", _saturated, False),
    ("outgoing", _outgoing, False),
    ("cut", _cut, False),
)


def findings_of(layer: SickLayer) -> list[Finding]:
    """All that the measurements of one layer advise, in the order in which to mend it."""
    found = []
    claimed = np.zeros_like(layer.dead)
    for kind, rule, exclusive in _RULES:
        result = rule(layer, claimed)
        if result is not None and np.any(result[0]):
            found.append(Finding(kind, *result))
            claimed = claimed | result[0] if exclusive else claimed
    return found


def steps(found: Counts) -> str:
    """Training steps in words, such as "steps 3 to 5"."""
    first, last = int(found.min()), int(found.max())
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def neurons(mask: Mask) -> str:
    """The number of neurons in words."""
    return number(int(np.count_nonzero(mask)), "neuron")
