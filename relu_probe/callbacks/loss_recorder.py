"""The record of the loss of every training step, or of the size of its update, which dates their jumps."""

from typing import Any

from relu_probe.callbacks.update_size import UpdateSize
from relu_probe.report.loss_jumps import UPDATE_SIZE, LossJump, LossJumpTracker
from relu_probe.structure.keras_layers import has_running_loss

# Losses are followed 64 at a time: code that runs between two steps finds a cold cache.
STEPS_AT_ONCE = 64

# Parts of the names under which a training step of the user's returns its loss. An accuracy that rises is no loss that jumps.
_LOSS_NAMES = ("loss", "error", "cost", "mse", "mae", "nll")

# The batch number of `on_train_batch_end`, and `logs["loss"]`; plain tuples are made fastest.
LoggedLoss = tuple[int, Any]


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
        self._loss_sum, self._steps_summed = 0.0, 0  # of the epoch so far, in a training step of the user's
        self._executions = 0  # of the epoch so far, followed
        self._updates_before = 0  # of the weights, when the epoch began
        self._updates: int | None = None  # of the weights in the epoch, once it has ended
        self._update_size = UpdateSize()

    @property
    def jumps(self) -> list[LossJump]:
        """The jumps of all losses that were followed."""
        return self.tracker.found

    def begin_epoch(self, model: Any, epoch: int | None = None) -> None:
        """Starts the next epoch, with the number that Keras gives it."""
        self.tracker.begin_epoch(epoch)
        self._loss_sum, self._steps_summed = 0.0, 0
        self._executions = 0
        self._updates_before, self._updates = _updates_of(model) or 0, None

    def end_epoch(self, model: Any) -> None:
        """Notes how many steps the epoch really had, before the last losses are followed."""
        if (updates := _updates_of(model)) is not None:
            self._updates = updates - self._updates_before

    def note_loss(self, batch: int, logs: Any) -> bool:
        """Notes the loss that a step returned under the name "loss", or, in a training step of the user's, under another.

        Returns:
            Whether it returned one.
        """
        found = logs or {}
        loss = found.get("loss")
        if loss is None and not self._running_mean:
            loss = next((found[name] for name in found if any(part in name.lower() for part in _LOSS_NAMES)), None)
        self.pending.append((batch, loss))
        return loss is not None

    def note_update(self, model: Any) -> None:
        """Notes how far the newest step has moved the weights, in place of the loss that it did not return."""
        if not self._running_mean:
            self.tracker.quantity = UPDATE_SIZE
            self.pending[-1] = (self.pending[-1][0], self._update_size.take(model))

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
        for i, (batch, loss) in enumerate(losses, 1):
            self._executions += 1
            # If an execution has several steps, the hook gets the number of the first or the last, depending on Keras's version.
            done = int(batch) + 1 if steps == 1 else self._executions * steps
            done = done if steps_per_epoch is None else min(done, int(steps_per_epoch))
            done = self._steps_of_epoch(done, steps) if i == len(losses) else done
            self.tracker.see(done, loss if self._running_mean else self._mean(loss, done))

    def _mean(self, loss: Any, done: int) -> float | None:
        """The mean loss of the epoch so far, from the loss of the newest of `done` steps; None if it is no number."""
        try:
            value = float(loss)
        except (TypeError, ValueError):
            return None
        self._loss_sum += value * max(done - self._steps_summed, 0)
        self._steps_summed = done
        return self._loss_sum / done

    def _steps_of_epoch(self, done: int, steps: int) -> int:
        """The number of steps of the epoch, if it has ended: not that at its last hook, if the data ended within an execution.

        In Keras 3.3 that execution raises, has no hook, and counts one update too many.
        """
        if self._updates is None or abs(self._updates - done) > steps:
            return done
        return self._updates - (self._updates > done)


def _steps_per_execution(model: Any) -> int:
    """The number of steps in an execution; 1 for tf_keras, where it is a variable and the hooks get true batch numbers."""
    steps = getattr(model, "steps_per_execution", 1)
    return steps if isinstance(steps, int) else 1


def _updates_of(model: Any) -> int | None:
    """How often the optimizer has updated the weights; None if this is not needed or tells nothing of the training steps.

    Where an execution has several steps, the hooks do not tell within which of them the data ended. A loss scale skips updates.
    """
    optimizer: Any = getattr(model, "optimizer", None)
    if _steps_per_execution(model) == 1 or not hasattr(optimizer, "iterations") or hasattr(optimizer, "dynamic_scale"):
        return None
    return int(optimizer.iterations.numpy())
