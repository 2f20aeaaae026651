"""At which training step did the loss jump? Read off the running mean that Keras logs after each step."""

from __future__ import annotations

import math
from typing import NamedTuple


class LossJump(NamedTuple):
    """The loss rose from `before`, the mean of the epoch so far, to `after`, at one of `steps` steps from `step` on.

    `since` is the step from which on each was above the mean before it: a blow-up takes several.
    """

    step: int
    before: float
    after: float
    steps: int = 1
    since: int | None = None

    @property
    def ratio(self) -> float:
        """`after / before`; infinite where the loss is no longer a number."""
        if not math.isfinite(self.after):
            return math.inf
        return self.after / self.before if self.before > 0 else 0.0


LARGEST = 16  # of the jumps before the newest, a death of long ago may be dated by one of them


class LossJumpTracker:
    """Follows the loss of one fit, and keeps of each epoch the largest jump. `steps` counts the training steps.

    Args:
        keep: of the newest so many epochs, and the `LARGEST` of those before; None for all.
    """

    def __init__(self, keep: int | None = None) -> None:
        self.found: list[LossJump] = []
        self._keep = keep
        self.steps = 0
        self._first, self._mean = 0, math.nan  # the step the epoch began with, the mean loss of the epoch so far
        self._best: LossJump | None = None  # of this epoch
        self._rising = 0  # the step from which on the loss has risen

    @property
    def epoch_steps(self) -> int:
        """Training steps of the epoch so far."""
        return self.steps - self._first

    def begin_epoch(self) -> None:
        self._first, self._best = self.steps, None

    def see(self, done: int, mean: float | None) -> None:
        """After `done` steps of the epoch, their mean loss is `mean`; None where it is not known."""
        before, seen = self._mean, self.epoch_steps
        new, self.steps = done - seen, self._first + done
        if mean is None or new < 1:
            return
        self._mean = float(mean)
        after = (done * self._mean - seen * before) / new if seen else self._mean
        if math.isfinite(before):
            self._rising = self.steps if after <= before else min(self._rising, self.steps - new)
            self._add(LossJump(self.steps - new, before, after, new, self._rising))

    def _add(self, jump: LossJump) -> None:
        if self._best is None:
            self.found.append(jump)
            self._forget()
        elif jump.ratio > self._best.ratio:
            self.found[-1] = jump
        else:
            return
        self._best = jump

    def _forget(self) -> None:
        if self._keep is not None and len(self.found) > self._keep + LARGEST:
            self.found.remove(min(self.found[: -self._keep], key=lambda jump: jump.ratio))
