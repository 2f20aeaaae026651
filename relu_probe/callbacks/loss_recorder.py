"""The record of the loss of every training step, which dates the jumps of the loss."""

from typing import Any, NamedTuple

from relu_probe.report.loss_jumps import LossJump, LossJumpTracker
from relu_probe.structure.keras_layers import has_running_loss

# Losses are followed 64 steps at a time: code that runs between two steps finds a cold cache.
STEPS_AT_ONCE = 64


class ExecutedBatch(NamedTuple):
    """One call of Keras's train function, which takes one or more training steps.

    Args:
        first: the batch number of `on_train_batch_begin`.
        last: the batch number of `on_train_batch_end`.
        loss: `logs["loss"]`, None if there is none.
    """

    first: int
    last: int
    loss: Any


class LossRecorder:
    """Keeps the largest jump of the loss in each epoch of a fit. The callback's hooks append to `pending`.

    Args:
        keep: the number of newest epochs whose jumps are kept, None for all.
        model: the model that is trained; None before a fit.
    """

    def __init__(self, keep: int | None = None, model: Any = None) -> None:
        self.tracker = LossJumpTracker(keep)
        self.pending: list[tuple[int, int, Any]] = []  # of `ExecutedBatch`, as plain tuples, which are made faster
        self._running_mean = model is not None and has_running_loss(model)

    @property
    def jumps(self) -> list[LossJump]:
        """The jumps of all losses that were followed."""
        return self.tracker.found

    def take_pending(self) -> list[ExecutedBatch]:
        """Removes the pending losses and returns them, so that an error in following them is not repeated."""
        pending, self.pending = self.pending, []
        return [ExecutedBatch(*batch) for batch in pending]

    def follow(self, batches: list[ExecutedBatch], model: Any, params: dict[str, Any] | None) -> None:
        """Adds the losses to the tracker.

        Args:
            batches: what `take_pending` returned.
            model: the model that is trained.
            params: the callback's `params`; None if its hooks are called by hand.
        """
        for batch in batches:
            done = _steps_done(batch, getattr(model, "steps_per_execution", 1), (params or {}).get("steps"))
            self.tracker.see(done, batch.loss if self._running_mean else None)


def _steps_done(batch: ExecutedBatch, steps_per_execution: Any, steps_per_epoch: Any) -> int:
    """The number of steps of the epoch so far.

    For an execution of several steps, `on_train_batch_end` gets the number of its first step in Keras 3.3 and of its last
    in later versions, even if the data ended before. In tf_keras, which gives the last, `steps_per_execution` is a variable.
    """
    names_first = batch.last == batch.first and isinstance(steps_per_execution, int)
    done = int(batch.last) + (steps_per_execution if names_first else 1)
    return done if steps_per_epoch is None else min(done, int(steps_per_epoch))
