"""The record of the loss of every training step, which dates the jumps of the loss."""

from typing import Any

from relu_probe.report.loss_jumps import LossJump, LossJumpTracker
from relu_probe.structure.keras_layers import has_running_loss

# Losses are followed 64 at a time: code that runs between two steps finds a cold cache.
STEPS_AT_ONCE = 64

# The batch numbers of `on_train_batch_begin` and `on_train_batch_end`, and `logs["loss"]`; plain tuples are made fastest.
LoggedLoss = tuple[int, int, Any]


class LossRecorder:
    """Keeps the largest jump of the loss in each epoch of a fit. The callback's hooks append to `pending`.

    Args:
        keep: the number of newest epochs whose jumps are kept, None for all.
        model: the model that is trained; None before a fit.
    """

    def __init__(self, keep: int | None = None, model: Any = None) -> None:
        self.tracker = LossJumpTracker(keep)
        self.pending: list[LoggedLoss] = []  # logged, and not followed yet
        self._running_mean = model is not None and has_running_loss(model)

    @property
    def jumps(self) -> list[LossJump]:
        """The jumps of all losses that were followed."""
        return self.tracker.found

    def take_pending(self) -> list[LoggedLoss]:
        """Removes the pending losses and returns them, so that an error in following them is not repeated."""
        pending, self.pending = self.pending, []
        return pending

    def follow(self, losses: list[LoggedLoss], model: Any, params: dict[str, Any] | None) -> None:
        """Adds losses to the tracker.

        Args:
            losses: what `take_pending` returned.
            model: the model that is trained.
            params: the callback's `params`; None if its hooks are called by hand.
        """
        steps_per_execution = getattr(model, "steps_per_execution", 1)
        steps_per_epoch = (params or {}).get("steps")
        for first, last, loss in losses:
            done = _steps_done(int(last), steps_per_execution if last == first else 1)
            done = done if steps_per_epoch is None else min(done, int(steps_per_epoch))
            self.tracker.see(done, loss if self._running_mean else None)


def _steps_done(last: int, steps: Any) -> int:
    """The number of steps of the epoch so far, at least.

    For an execution of several steps, `on_train_batch_end` gets the number of its first step in Keras 3.3 and of its last
    step in later versions, even if the data ended before. In tf_keras, which gives the last, the number of steps in an
    execution is a variable.
    """
    return last + (steps if isinstance(steps, int) else 1)
