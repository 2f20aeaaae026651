"""When is it measured, and who is told?"""

import os
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import tensorflow as tf

from relu_probe.diagnosis.nans import nan_line
from relu_probe.measuring import data as data_module
from relu_probe.measuring.measure import has_loss, measurer_of
from relu_probe.measuring.train_step import (
    CountedTrainFunction,
    arm_next_step,
    begin_counting,
    counters_of_this_fit,
    disarm,
    kept_counters,
    training_counters,
)
from relu_probe.report.history import History, HistoryTracker, history
from relu_probe.report.limit_monitor import LimitMonitor
from relu_probe.report.limits import Limits
from relu_probe.report.loss_jumps import LossJump, LossJumpTracker
from relu_probe.report.report import Report
from relu_probe.structure.keras_layers import has_running_loss
from relu_probe.structure.layer_selection import LayerSelection
from relu_probe.structure.support import check_model
from relu_probe.tensorboard.summaries import Summaries
from relu_probe.utils.callback_list import call_last, fit_under_way
from relu_probe.utils.distributed import found_by_any, has_several_workers, is_chief
from relu_probe.utils.error_policy import ErrorPolicy
from relu_probe.utils.validation import check_arguments, check_names

_AT_ONCE = 64  # steps whose losses are followed together: what runs between two steps finds a cold cache


class ReluProbe(tf.keras.callbacks.Callback):
    """Tells which ReLUs of the model are dead, epoch by epoch, in `.reports`, in `logs` and in TensorBoard.

    List it before callbacks that read its keys (`EarlyStopping`, `CSVLogger`): `logs` pass from first to last. And before
    `BackupAndRestore`: what kills the training between the two costs no epoch then.

    Args:
        log_dir: TensorBoard's directory; the event files go to `{log_dir}/{name}`. None writes none.
        data: None counts every training batch of the epoch, as trained, with no extra pass over any data. Else what
            `measure` takes: measured at each epoch's end, weights frozen, inference mode.
        freq: measures the epochs with `epoch % freq == 0`; in between `logs` repeat the last values.
        name: of the run directory, one a probe of a fit. A probe with another name writes `{name}_dead_fraction` to `logs`.
        layers: names, globs or layer objects, of nested models paths too, such as "encoder/*"; None for every ReLU layer.
        strict: an error of measuring or logging stops the training; otherwise it is a warning, and the report says so.
        activation_sum: keep the sums of the activations of the training batches too, for `LayerReport.dormant`.
        images: TensorBoard gets the picture of each layer's life, in reports 1, 2, 4, 8, ... and at the end of the fit.
        text: TensorBoard gets each report as a table.
        at_start: measure `data` before the first step too, as a report with epoch -1: born dead, or killed?
        max_dead, max_zero_gradient: limits on the dead and zero-gradient fraction of each layer, None for none.
        patience: the number of reports in a row in which a layer may be above its limit.
        on_limit: what happens then: "stop" ends the training after the epoch, "raise" fails it.
        keep: the newest so many of the reports stay in `.reports`, for long trainings; None keeps all. Pictures then
            show those; dates of deaths (`.history`, `diagnose`) still rest on all.

    Raises:
        ValueError, TypeError: on a wrong argument at once; on a wrong model or wrong data before the first step.

    >>> import numpy as np, tensorflow as tf
    >>> model = tf.keras.Sequential(
    ...     [tf.keras.Input((4,)), tf.keras.layers.Dense(8, "relu", name="hidden"), tf.keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> probe = ReluProbe()
    >>> history = model.fit(np.ones((6, 4)), np.ones((6, 1)), epochs=2, verbose=0, callbacks=[probe])
    >>> [report.samples for report in probe.reports]
    [6, 6]
    >>> history.history["dead_fraction"][-1] == probe.report.dead_fraction
    True
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        data: Any = None,
        *,
        freq: int = 1,
        name: str = "relu_probe",
        layers: Any = None,
        strict: bool = False,
        activation_sum: bool = False,
        images: bool = True,
        text: bool = True,
        at_start: bool = False,
        max_dead: float | None = None,
        max_zero_gradient: float | None = None,
        patience: int = 0,
        on_limit: str = "stop",
        keep: int | None = None,
    ) -> None:
        super().__init__()
        switches = {"strict": strict, "activation_sum": activation_sum, "images": images, "text": text}
        check_arguments(log_dir=log_dir, data=data, freq=freq, name=name, at_start=at_start, keep=keep, **switches)
        self._guard = LimitMonitor(Limits(max_dead, max_zero_gradient), patience, on_limit)
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self.data, self.freq, self.name, self.layers = data, int(freq), name, layers
        self.strict, self.activation_sum, self.at_start = strict, activation_sum, at_start
        self.images, self.text, self.keep = images, text, keep
        self.reports: list[Report] = []
        self._faults = ErrorPolicy(strict)
        self._summaries: Summaries | None = None
        self._chosen: LayerSelection  # for the time of a fit
        self._batches: Any = None
        self._measuring = False  # in this epoch
        self._last = False  # whether Keras calls `_count_step` after all other callbacks' hooks
        self._batch = 0  # of this epoch, the step it began with
        self._noted: list[tuple[int, int, Any]] = []  # the steps since the loss was last followed
        self._shot: CountedTrainFunction | None = None  # what counts the steps of this epoch
        self._tracker, self._loss_jumps, self._running_loss = HistoryTracker(), LossJumpTracker(keep), False
        self._dropped = HistoryTracker()  # of the reports that `keep` dropped
        self._uncounted = False  # whether training steps of this fit were taken without counting
        self._nan_said = False

    @property
    def loss_jumps(self) -> list[LossJump]:
        """Of each epoch the training step whose loss rose most above the loss so far.

        With `keep` those of the newest epochs, and the largest of the ones before.
        """
        self._follow_loss()
        return self._loss_jumps.found

    @property
    def history(self) -> History:
        """`history(probe.reports)`, in which nothing is forgotten of the reports that `keep` dropped."""
        return history(self.reports, after=self._dropped)

    @property
    def report(self) -> Report | None:
        """The newest report, None before the first."""
        return self.reports[-1] if self.reports else None

    def set_model(self, model: Any) -> None:
        check_model(model)
        super().set_model(model)

    # --- a fit --------------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        self.reports, self._faults, self._measuring = [], self._no_faults(), False
        self._tracker, self._dropped = HistoryTracker(), HistoryTracker()
        self._loss_jumps, self._uncounted, self._nan_said = LossJumpTracker(self.keep), False, False
        self._noted = []
        self._running_loss = has_running_loss(self.model)
        self._close()
        check_names(self.name, [c.name for c in getattr(fit_under_way(), "callbacks", []) if isinstance(c, ReluProbe)])
        self._chosen = LayerSelection(self.layers, self.model)
        if self.data is not None:
            self._batches = data_module.read(self.data)
            if self.model.built:
                measurer_of(self.model).check(self._batches)
        else:
            begin_counting(self.model, activation_sum=self.activation_sum)
        self._guard.restart(gradients=self._expects_gradients())
        if self.log_dir is not None and is_chief(self.model.distribute_strategy):
            self._summaries = Summaries(self.log_dir, self.name, images=self.images, text=self.text, keep=self.keep)
            self._guarded("logging", self._summaries.open)
        self._last = call_last(self._count_step)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 0 and self.at_start:
            self._report_on(-1)
        self._measuring, self._shot = epoch % self.freq == 0, None
        self._count_late_layers()
        if self._measuring and self.data is None:
            steps = self._loss_jumps.steps if self._uncounted else None
            self._guarded("measuring", lambda: counters_of_this_fit(self.model).reset(steps))
        self._loss_jumps.begin_epoch()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._batch = int(batch)  # tf_keras passes tensors
        if not self._last:
            self._count_step()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._noted.append((self._batch, batch, (logs or {}).get("loss")))
        if len(self._noted) == _AT_ONCE:
            self._follow_loss()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        disarm(self.model)
        self._shot = None  # it holds the model
        self._follow_loss()
        if self._measuring:
            self._report_on(epoch)
        else:
            self._uncounted = True
        self._tell(logs)
        self._enforce(epoch)

    def on_train_end(self, logs: Any = None) -> None:
        if self._summaries is not None:
            self._guarded("logging", self._summaries.finish)
        if self._summaries is not None and self.reports and "logging" not in self._faults:
            _say(self._summaries.how_to_open())
        self._close()

    # --- its parts ----------------------------------------------------------------------------------------------------

    def _count_step(self) -> None:
        if self._shot is not None and self._shot.rearm():
            return
        if self._measuring and self.data is None and not self._faults.switched_off("measuring"):
            self._shot = arm_next_step(self.model, not_all=self.freq > 1)

    def _count_late_layers(self) -> None:
        """From the next epoch on: not before all probes of the fit have read the counters that do not know them."""
        if self._chosen.take_up():
            before = kept_counters(self.model)
            if training_counters(self.model, activation_sum=self.activation_sum) is not before:  # else by another probe
                self._uncounted = True  # by the new counters

    @property
    def _incomplete(self) -> str:
        return "; ".join(why for why in (self._faults.why, self._chosen.missed) if why)

    def _follow_loss(self) -> None:
        def follow() -> None:
            for step in noted:
                self._date(*step)

        noted, self._noted = self._noted, []
        if noted:
            self._guarded("dating", follow)

    def _date(self, first: int, batch: int, loss: Any) -> None:
        # Of the steps of one execution Keras 3.3 names the first, later ones the last, even if the data ended before.
        steps = getattr(self.model, "steps_per_execution", 1)  # under tf_keras a variable, and the last step is named
        done = int(batch) + (steps if batch == first and isinstance(steps, int) else 1)
        limit = (getattr(self, "params", None) or {}).get("steps")  # None where the hooks are called by hand
        done = done if limit is None else min(done, int(limit))
        self._loss_jumps.see(done, loss if self._running_loss else None)

    def _report_on(self, epoch: int) -> None:
        self._guarded("measuring", lambda: self._measure(epoch))
        if self._faults.why and not self.reports:  # so that there is one that says why
            self.reports.append(Report(epoch=epoch, source=self._source, incomplete=self._faults.why))
        self._guarded("logging", lambda: self._log(epoch))
        self._guarded("telling", self._say_nan)

    def _say_nan(self) -> None:
        """Once a fit: `dead_fraction` does not show them."""
        if not self._nan_said and self.report is not None and (line := nan_line(self.report)):
            self._nan_said = True
            if is_chief(self.model.distribute_strategy):
                _say(f"\n{line}")

    def _measure(self, epoch: int) -> None:
        counted = self.data is None
        report = self._read() if counted else measurer_of(self.model).run(self._batches)
        self._chosen.look(self.model, counted=counted)
        counters = counters_of_this_fit(self.model) if counted else measurer_of(self.model).counters
        if (missing := counters.missing(self._chosen.keys)) and self.strict:
            raise ValueError(f"{missing}.")
        self._chosen.missed = "; ".join(filter(None, (self._chosen.missed, missing)))
        report = report.select(self._chosen.keys)
        report = replace(report, epoch=epoch, source=self._source, incomplete=self._incomplete)
        self.reports.append(self._tracker.follow(report))
        while self.keep is not None and len(self.reports) > self.keep:
            self._dropped.follow(self.reports.pop(0))

    def _read(self) -> Report:
        """Before anything that may fail: a collective."""
        counters = counters_of_this_fit(self.model)
        report = Report(counters.read(self._chosen.keys, self.activation_sum))
        counters.check(self._loss_jumps.epoch_steps)
        return report

    def _log(self, epoch: int) -> None:
        if self._summaries is not None and self.report is not None and self.report.epoch == epoch:
            self._summaries.write(self.report, epoch)

    def _tell(self, logs: Any) -> None:
        """Plain floats, no slash in the key, every epoch: else CSVLogger and History go out of step."""
        if logs is None:
            return
        prefix = "" if self.name == "relu_probe" else f"{self.name}_"
        report = self.report or Report.empty()
        logs[f"{prefix}dead_fraction"] = float(report.dead_fraction)
        if report.has_gradients if report.samples else self._expects_gradients():
            logs[f"{prefix}zero_gradient_fraction"] = float(report.zero_gradient_fraction)

    def _enforce(self, epoch: int) -> None:
        if not self._measuring or not (why := self._excess(epoch)):
            return
        self.model.stop_training = True
        if self._guard.on_limit == "raise":
            self._close()  # Keras skips on_train_end
            raise RuntimeError(f"relu_probe: training failed in epoch {epoch}: {why}")
        _say(f"\nrelu_probe: training stopped after epoch {epoch}: {why}")

    def _excess(self, epoch: int) -> str:
        """One worker that has lost a report would end epochs after the others, and wait for them for ever."""
        report = self.report
        why = self._guard.follow(report) if report is not None and report.epoch == epoch else ""
        if self._guard.limits and found_by_any(self.model.distribute_strategy, bool(why)):
            return why or f"a limit was exceeded on another worker. This one lost a report: {self._faults.why}"
        return ""

    @property
    def _source(self) -> str:
        return "train" if self.data is None else "data"

    def _expects_gradients(self) -> bool:
        return self.data is None or (self._batches.labelled and has_loss(self.model))

    def _no_faults(self) -> ErrorPolicy:
        """Of several workers each waits for all others: one that has a fault goes on with them, or ends.

        The counters are counted and read on, step by step the same collectives. A pass over data cannot be resumed: its
        error passes, and TensorFlow ends the others.
        """
        shared = ["measuring"] if has_several_workers(self.model.distribute_strategy) else []
        return (
            ErrorPolicy(self.strict, lasting=shared) if self.data is None else ErrorPolicy(self.strict, passing=shared)
        )

    def _guarded(self, part: str, work: Callable[[], None]) -> None:
        """Run-time errors never stop a fit: one warning, the part is switched off, and the report says so."""
        try:
            fine = self._faults.run(part, work)
        except Exception:
            self._close()  # strict; Keras skips on_train_end
            raise
        if not fine and self.reports and self.reports[-1].incomplete != self._incomplete:
            self.reports[-1] = replace(self.reports[-1], incomplete=self._incomplete)

    def _close(self) -> None:
        if self._summaries is not None:
            self._summaries.close()
            self._summaries = None

    # --- copies -------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Without the model and what was made for one fit: a copy has the reports, and can be used in any fit."""
        self._follow_loss()  # while the model is known
        dropped = {"_model", "model", "_summaries", "_batches", "_chosen", "_shot"}
        return {name: None if name in dropped else value for name, value in self.__dict__.items()}

    def __deepcopy__(self, memo: dict[int, Any]) -> "ReluProbe":
        """`data` and `layers` are shared: they are only read, and a Dataset cannot be copied."""
        memo.update({id(shared): shared for shared in (self.data, self.layers)})
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(deepcopy(self.__getstate__(), memo))
        return copied


def _say(text: str) -> None:
    """A closed terminal, or one that cannot show a directory's name, is no reason to lose a trained model."""
    with suppress(OSError, ValueError):
        print(text)
