"""One layer with dead or blocked neurons: which of its neurons died when, as far as that was measured. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from relu_probe.diagnosis.layer_diagnosis import LayerDiagnosis
from relu_probe.report.layer_history import LayerHistory
from relu_probe.report.layer_report import Counts, LayerReport, Mask
from relu_probe.report.loss_jumps import LossJump

STEPS_AFTER_JUMP = 5  # gradients stay large for a few steps after a jump
FIRST_STEPS = 20  # of a training: deaths in them are early
MANY = 0.1  # of a layer's neurons: so many deaths, or early deaths, are more than what happens in trainings that learn well
MANY_LATER = 0.2  # the same of deaths at any time of the training: the demo's networks, which learn well, lose a fifth


@dataclass(frozen=True)
class SickLayer:
    """What is known about one layer with dead or blocked neurons.

    Args:
        diagnosis: the diagnosis of the layer.
        own: `(neurons,)`, the sick neurons that no other layer makes sick.
        feeders: the layers because of which neurons without input are dead.
        unplaced: the ReLUs of which it is not known what they feed, and that are dead as a whole or not counted.
        relu_widths: the number of neurons of each ReLU layer up to and including this one.
        history: the history of its neurons, None without a probe.
        loss_jumps: the jumps of the training loss.
        target_size: the root mean square of the targets, if the loss compares them with predictions of that size; else nan.
        trained: the counts of the newest epoch's training batches, None if they are not known.
    """

    diagnosis: LayerDiagnosis
    own: Mask
    feeders: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()
    relu_widths: tuple[int, ...] = ()
    history: LayerHistory | None = None
    loss_jumps: tuple[LossJump, ...] = ()
    trained: LayerReport | None = None
    target_size: float = float("nan")

    @property
    def dead(self) -> Mask:
        """`(neurons,)`: the dead neurons."""
        return self.diagnosis.report.dead

    def with_cause(self, *causes: str) -> Mask:
        """`(neurons,)`: the neurons with one of these causes."""
        return np.isin(self.diagnosis.cause, causes)

    def fired_in_training(self) -> Mask | None:
        """`(neurons,)`: was active at some time of the training; None if that is not known."""
        if self.history is None or len(self.history.ever_active) != len(self.dead):
            return None
        last = self.history.last_active
        return self.history.ever_active | (last >= 0 if last is not None else False)

    def died_in_training(self) -> Mask:
        """`(neurons,)`: dead, was active at some time of the training, and no longer at its end.

        A neuron that was active to the end may be dead because these data are others, or are seen in inference mode.
        """
        fired = self.fired_in_training()
        return (
            np.zeros_like(self.dead)
            if fired is None or self.history is None
            else self.dead & fired & ~self.history.still_active
        )

    def dead_from_start(self) -> Mask:
        """`(neurons,)`: dead, and not known to have ever been active."""
        fired = self.fired_in_training()
        return self.dead if fired is None else self.dead & ~fired

    def fires_in_training_only(self) -> Mask:
        """`(neurons,)`: dead in inference mode, but active in the newest epoch's training steps."""
        if self.trained is None or self.trained.neurons != len(self.dead):
            return np.zeros_like(self.dead)
        return self.dead & (self.trained.active > 0)

    def born_dead_by_width(self) -> float:
        """The probability that at initialisation one of the layers up to this one is all dead (Lu et al. 2019)."""
        return 1 - prod(1 - 2.0**-width for width in self.relu_widths)

    # --- deaths that the learning rate explains -----------------------------------------------------------------------

    def deaths_at_loss_jump(self) -> tuple[Mask, Counts, LossJump] | None:
        """The dead neurons that were last active while the loss rose to one of its jumps or within a few steps after it.

        Returns:
            Their mask `(neurons,)`, the steps at which they were last active, and the jump with the most such neurons, the first of several.
            None if they are fewer than two, or fewer than half of the dead neurons that were ever active.
        """
        last, jumps = self._last_active(), self.large_jumps()
        if last is None or not jumps:
            return None
        starts = [jump.step if jump.since is None else jump.since for jump in jumps]
        died = self.died_in_training() & (last >= 0)  # a neuron that was never active was killed by no step
        masks = [
            died & (last >= start - 1) & (last < jump.step + jump.steps + STEPS_AFTER_JUMP)
            for start, jump in zip(starts, jumps)
        ]
        mask, jump = max(zip(masks, jumps), key=lambda pair: (np.count_nonzero(pair[0]), -pair[1].step))
        count = np.count_nonzero(mask)
        return (mask, last[mask], jump) if count >= 2 and 2 * count >= np.count_nonzero(died) else None

    def deaths_in_first_steps(self) -> Mask:
        """`(neurons,)`: the dead neurons that were last active in the first steps, if they are many; else none."""
        last = self._last_active()
        if last is None:
            return np.zeros_like(self.dead)
        return self.if_many(self.died_in_training() & (last >= 0) & (last < FIRST_STEPS))

    def deaths_in_first_or_jumping_epoch(self) -> tuple[Mask, int] | None:
        """The dead neurons that died in the first epoch, or in one whose loss jumped, and that epoch; None if they are few.

        It needs reports of given data, the first of them from before the first step.
        """
        history = self.history
        if history is None or history.last_active is not None or not len(history.epochs) or history.epochs[0] != -1:
            return None
        jumping = {jump.epoch for jump in self.large_jumps()} | {0}
        died = [self.if_many(self.dead & mask) for mask in history.died if len(mask) == len(self.dead)]
        found = [(mask, int(epoch)) for mask, epoch in zip(died, history.epochs) if epoch in jumping and np.any(mask)]
        return max(found, key=lambda pair: np.count_nonzero(pair[0]), default=None)

    def large_jumps(self) -> list[LossJump]:
        """The jumps that are larger than what differs from step to step."""
        return [jump for jump in self.loss_jumps if jump.is_large]

    def _last_active(self) -> Counts | None:
        last = None if self.history is None else self.history.last_active
        return None if last is None or len(last) != len(self.dead) else last

    def if_many(self, mask: Mask, share: float = MANY) -> Mask:
        """The mask if it has at least this share of the layer's neurons, else one without any."""
        many = np.count_nonzero(mask) >= max(share * len(mask), 1)
        return mask if many else np.zeros_like(mask)
