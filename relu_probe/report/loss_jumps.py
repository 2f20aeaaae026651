"""Jumps of the training loss, or of the size of the updates, from their running mean after each step."""

from __future__ import annotations

import math
from typing import NamedTuple

UPDATE_SIZE = "size of the update"  # the norm of what a step moved the weights by

# The ratio from which on a jump is large. Updates differ more from step to step than losses do.
_LARGE = {"loss": 2.0, UPDATE_SIZE: 5.0}


class LossJump(NamedTuple):
    """A rise of the training loss, or, where the training step returns none, of the size of its update.

    Args:
        step: the training step of the jump, counted from 0.
        before: the mean loss of the epoch before the jump; nan where the very first loss is no finite number.
        after: the loss at the jump.
        steps: the number of steps, from `step` on, of which `after` is the mean: more than one with `steps_per_execution`.
        since: the step since which every loss was above the mean before it. A blow-up takes several steps.
        epoch: the epoch of the jump, as Keras counts them; None if it is not known.
        quantity: what has risen: "loss" or "size of the update".
        risen: if `after` is no finite number, how many times as large as the mean before `since` the largest loss since then was.
    """

    step: int
    before: float
    after: float
    steps: int = 1
    since: int | None = None
    epoch: int | None = None
    quantity: str = "loss"
    risen: float = 1.0

    @property
    def ratio(self) -> float:
        """`after / before`; infinite if the loss is no longer a finite number."""
        if not math.isfinite(self.after):
            return math.inf
        return self.after / self.before if self.before > 0 else 0.0

    @property
    def is_large(self) -> bool:
        """Whether the loss at least doubled, or the update was at least five times as large as those before."""
        return self.ratio >= _LARGE[self.quantity]

    @property
    def is_large_rise(self) -> bool:
        """Whether it is large, and known from finite numbers: a loss may turn NaN without having risen."""
        return (self.ratio if math.isfinite(self.after) else self.risen) >= _LARGE[self.quantity]


# The number of jumps kept from before the newest epochs: one of them may explain a death of long ago.
LARGEST = 16


class LossJumpTracker:
    """Follows the loss of a fit, and keeps the largest jump of each epoch.

    Args:
        keep: the number of newest epochs whose jumps are kept, in addition to the `LARGEST` ones from before; None keeps all.
    """

    def __init__(self, keep: int | None = None) -> None:
        self.found: list[LossJump] = []
        self.steps = 0  # training steps of the fit
        self.quantity = "loss"
        self._keep = keep
        self._first_step = 0  # of the epoch
        self._mean = math.nan  # of the losses of the epoch so far
        self._largest: LossJump | None = None  # of the epoch
        self._rising_since = 0
        self._risen = 1.0  # as `LossJump.risen`
        self._mean_before_rise = math.nan
        self._epoch: int | None = None

    @property
    def epoch_steps(self) -> int:
        """The number of training steps of the epoch so far."""
        return self.steps - self._first_step

    def begin_epoch(self, epoch: int | None = None) -> None:
        """Starts the next epoch, with the number that Keras gives it."""
        self._epoch = epoch
        self._first_step, self._largest = self.steps, None

    def see(self, done: int, mean: float | None) -> None:
        """Takes in the mean loss of the first `done` steps of the epoch; None if it is not known."""
        before, seen = self._mean, self.epoch_steps
        new, self.steps = done - seen, self._first_step + done
        if mean is None or new < 1:
            return
        self._mean = float(mean)
        after = (done * self._mean - seen * before) / new if seen else self._mean
        first = self.steps - new
        if first == 0 and not math.isfinite(after):
            self._add(LossJump(first, before, after, new, first, self._epoch, self.quantity))
        elif math.isfinite(before):
            self._follow_rise(first, before, after)
            rise = (self._rising_since, self._epoch, self.quantity, 1.0 if math.isfinite(after) else self._risen)
            self._add(LossJump(first, before, after, new, *rise))

    def _follow_rise(self, first: int, before: float, after: float) -> None:
        if after <= before:
            self._rising_since, self._risen, self._mean_before_rise = self.steps, 1.0, math.nan
            return
        if math.isnan(self._mean_before_rise):
            self._rising_since, self._mean_before_rise = min(self._rising_since, first), before
        if math.isfinite(after) and self._mean_before_rise > 0:
            self._risen = max(self._risen, after / self._mean_before_rise)

    def _add(self, jump: LossJump) -> None:
        if self._largest is None:
            self.found.append(jump)
            self._drop_smallest()
        elif jump.ratio > self._largest.ratio:
            self.found[-1] = jump
        else:
            return
        self._largest = jump

    def _drop_smallest(self) -> None:
        if self._keep is not None and len(self.found) > self._keep + LARGEST:
            self.found.remove(min(self.found[: -self._keep], key=lambda jump: jump.ratio))
