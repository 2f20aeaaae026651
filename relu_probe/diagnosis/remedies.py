"""What follows from a finding? Each remedy has a trigger that was measured, words, and a source, or is not said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from relu_probe.report.history import LayerHistory
from relu_probe.report.layer_report import Counts, Mask
from relu_probe.report.loss_jumps import LossJump

if TYPE_CHECKING:
    from relu_probe.diagnosis.diagnose import LayerDiagnosis

JUMP = 2.0  # the loss of a step at least so many times the mean before it
AFTERMATH = 5  # steps: the gradients are large for a while after a jump
NARROW = 0.01  # the probability of a layer that is all dead at initialisation, from which on its width is to blame


@dataclass(frozen=True)
class Finding:
    """One sick layer: what is known of it.

    Args:
        layer: its diagnosis.
        first_sick: the name of the first sick layer, None where it is this one.
        widths: of the ReLU layers up to this one.
        life: of its neurons, None without a probe.
        jumps: of the loss.
    """

    layer: LayerDiagnosis
    first_sick: str | None
    widths: tuple[int, ...]
    life: LayerHistory | None
    jumps: tuple[LossJump, ...]

    def killed(self) -> tuple[Mask, Counts, LossJump] | None:
        """The neurons last active in the rise of the loss to one of its jumps, or within a few steps of it, where they are
        half of those that died or more.

        With them the steps at which they were last active.
        """
        last, dead = None if self.life is None else self.life.last_active, self.layer.report.dead
        jumps = [jump for jump in self.jumps if jump.ratio >= JUMP]
        if last is None or len(last) != len(dead) or not jumps:
            return None
        first = [jump.step if jump.since is None else jump.since for jump in jumps]
        died = dead & (last >= 0)  # the others were never active: no step killed them
        masks = [
            died & (last >= begin - 1) & (last < jump.step + jump.steps + AFTERMATH)
            for begin, jump in zip(first, jumps)
        ]
        mask, jump = max(zip(masks, jumps), key=lambda pair: (np.count_nonzero(pair[0]), pair[1].ratio))
        count = np.count_nonzero(mask)
        return (mask, last[mask], jump) if count >= 2 and 2 * count >= np.count_nonzero(died) else None

    def of_cause(self, cause: str) -> Mask:
        """The neurons with this cause, without those killed at a jump of the loss: before it they were well."""
        mask = self.layer.cause == cause
        return np.asarray(mask & ~killed[0] if (killed := self.killed()) else mask)

    def from_the_start(self, mask: Mask) -> Mask:
        """Those of them that were not seen alive: what they were initialised with may be to blame."""
        return mask if self.life is None or len(self.life.born_dead) != len(mask) else mask & self.life.born_dead


class Remedy(NamedTuple):
    """`trigger` gives the finding in words, with its numbers, or None where it was not found."""

    trigger: Callable[[Finding], str | None]
    words: str
    source: str


def _killed_at_a_jump(finding: Finding) -> str | None:
    if (killed := finding.killed()) is None:
        return None
    mask, last_active, jump = killed
    return (
        f"{_count(mask)} of the {_count(finding.layer.report.dead)} dead neurons were last active at training "
        f"{_steps(last_active)}, and at {_steps(np.arange(jump.step, jump.step + jump.steps))} "
        f"the loss jumped from {jump.before:.3g} to {jump.after:.3g}."
    )


def _bias(finding: Finding) -> str | None:
    return _held_down(finding, "the bias")


def _beta(finding: Finding) -> str | None:
    return _held_down(finding, "beta and the moving mean of BatchNormalization")


def _threshold(finding: Finding) -> str | None:
    mask = finding.of_cause("bias")
    has_one = "the threshold" in finding.layer.offset_description
    return f"{finding.layer.offset_description} hold down {_neurons(mask)}." if np.any(mask) and has_one else None


def _held_down(finding: Finding, words: str) -> str | None:
    mask = finding.from_the_start(finding.of_cause("bias"))
    if not np.any(mask) or finding.layer.offset_description != words:
        return None
    verb = "holds" if words == "the bias" else "hold"
    return f"{words} {verb} down {_neurons(mask)}, which some sample would make fire."


def _one_sided_inputs(finding: Finding) -> str | None:
    mask, layer = finding.of_cause("weights"), finding.layer
    if not np.any(mask) or not layer.is_first_layer or not layer.lowest_input >= 0:
        return None
    return (
        f"no input of this first layer is negative (the smallest is {layer.lowest_input:.3g}), and in {_neurons(mask)} "
        "w.x <= 0 on all samples."
    )


def _born_dead_and_narrow(finding: Finding) -> str | None:
    life, dead = finding.life, finding.layer.report.dead
    if life is None or not dead.all() or not life.born_dead.all() or np.any(finding.layer.cause == "bias"):
        return None
    chance = 1 - prod(1 - 2.0**-width for width in finding.widths)
    if chance < NARROW:
        return None
    return (
        f"the whole layer was born dead. One-sided inputs, zero bias, layers of {', '.join(map(str, finding.widths))} "
        f"ReLUs: at initialisation one of these layers is all dead with probability {chance:.3g}."
    )


def _upstream(finding: Finding) -> str | None:
    mask = finding.of_cause("input")
    if not np.any(mask) or finding.first_sick is None:
        return None
    return f"nothing but zeros reaches {_neurons(mask)}. The first sick layer is {finding.first_sick}."


def _loss(finding: Finding) -> str | None:
    return _blocked(finding, "loss", "no gradient leaves the loss for {}.")


def _saturated(finding: Finding) -> str | None:
    return _blocked(
        finding,
        "saturated",
        "at every sample that makes them fire, {} at the ceiling of the bounded ReLU.",
        "is",
        "are",
    )


def _outgoing(finding: Finding) -> str | None:
    return _blocked(finding, "outgoing", "all outgoing weights of {} are zero.")


def _downstream(finding: Finding) -> str | None:
    return _blocked(finding, "downstream", "all that {} fed to is dead or blocked itself.", "is", "are")


def _blocked(finding: Finding, cause: str, words: str, one: str = "", many: str = "") -> str | None:
    mask = finding.of_cause(cause)
    if not np.any(mask):
        return None
    verb = one if np.count_nonzero(mask) == 1 else many
    return words.format(f"{_neurons(mask)} {verb}".strip())


def _steps(steps: Counts) -> str:
    first, last = int(steps.min()), int(steps.max())
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def _count(mask: Mask) -> str:
    return f"{np.count_nonzero(mask):,}"


def _neurons(mask: Mask) -> str:
    return f"{_count(mask)} neuron{'' if np.count_nonzero(mask) == 1 else 's'}"


REMEDIES = (
    Remedy(
        _killed_at_a_jump,
        "Lower the learning rate, or clip the gradients (clipnorm=1.0 in the optimizer).",
        "Pascanu et al. 2013, arXiv:1211.5063",
    ),
    Remedy(
        _bias,
        "Initialise the bias at zero or at a small positive value, such as 0.1.",
        "Goodfellow et al. 2016, Deep Learning, section 6.3.1",
    ),
    Remedy(
        _beta,
        "Initialise beta at zero; compare the moving mean with the mean of the data that the model sees now.",
        "Ioffe and Szegedy 2015, arXiv:1502.03167",
    ),
    Remedy(_threshold, "Lower the threshold of the ReLU.", "by definition: the threshold is subtracted from the bias"),
    Remedy(
        _one_sided_inputs,
        "Standardise the inputs: subtract from each its mean over the training data, divide by its standard deviation.",
        "LeCun et al. 1998, Efficient BackProp, section 4.3",
    ),
    Remedy(
        _born_dead_and_narrow,
        "Widen the layers, or initialise them otherwise (randomized asymmetric initialization).",
        "Lu et al. 2019, arXiv:1903.06733",
    ),
    Remedy(
        _upstream, "Look there first: these neurons follow from it.", "by definition: z = b wherever the input is zero"
    ),
    Remedy(
        _loss,
        "Look at the loss, its weights and the labels: the network passes on what it gets.",
        "measured: dL/dy = 0",
    ),
    Remedy(
        _saturated, "Use an unbounded ReLU, or smaller weights before it.", "by definition: relu'(z) = 0 at the ceiling"
    ),
    Remedy(
        _outgoing,
        "Initialise the weights of the layer behind at random, not at zero.",
        "Goodfellow et al. 2016, Deep Learning, section 8.4",
    ),
    Remedy(
        _downstream,
        "Look at the layers behind: these neurons follow from them.",
        "by definition: dL/da is a sum over what a feeds",
    ),
)
