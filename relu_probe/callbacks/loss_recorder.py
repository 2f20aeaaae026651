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
        self._updates_before = 0  # of the weights, when the epoch began
        self._updates: int | None = None  # of the weights in the epoch, once it has ended

    @property
    def jumps(self) -> list[LossJump]:
        """The jumps of all losses that were followed."""
        return self.tracker.found

    def begin_epoch(self, model: Any) -> None:
        """Starts the next epoch."""
        self.tracker.begin_epoch()
        self._updates_before, self._updates = _updates_of(model) or 0, None

    def end_epoch(self, model: Any) -> None:
        """Notes how many steps the epoch really had, before the last losses are followed."""
        if (updates := _updates_of(model)) is not None:
            self._updates = updates - self._updates_before

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
        steps = _steps_per_execution(model)
        steps_per_epoch = (params or {}).get("steps")
        for i, (first, last, loss) in enumerate(losses, 1):
            done = _steps_done(int(last), steps if last == first else 1)
            done = done if steps_per_epoch is None else min(done, int(steps_per_epoch))
            if i == len(losses) and self._updates is not None and abs(self._updates - done) < steps:
                done = self._updates
            self.tracker.see(done, loss if self._running_mean else None)


def _steps_done(last: int, steps: int) -> int:
    """The number of steps of the epoch so far, unless the data ended within the last execution.

    For an execution of several steps, `on_train_batch_end` gets the number of its first step in Keras 3.3 and of its last
    step in later versions, even if the data ended before.
    """
    return last + steps


def _steps_per_execution(model: Any) -> int:
    """The number of steps in an execution; 1 for tf_keras, where it is a variable and the hooks get true batch numbers."""
    steps = getattr(model, "steps_per_execution", 1)
    return steps if isinstance(steps, int) else 1


def _updates_of(model: Any) -> int | None:
    """How often the optimizer has updated the weights; None if this is not needed or tells nothing of the training steps.

    Where an execution has several steps, the hooks do not tell within which of them the data ended. A loss scale skips updates.
    """
    optimizer = getattr(model, "optimizer", None)
    iterations = getattr(optimizer, "iterations", None)
    unknown = _steps_per_execution(model) == 1 or iterations is None or hasattr(optimizer, "dynamic_scale")
    return None if unknown else int(iterations)
