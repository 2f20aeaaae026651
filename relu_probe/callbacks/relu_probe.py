"""The Keras callback `ReluProbe`: when to measure, and where the results go."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from relu_probe.callbacks.copyable_callback import CopyableCallback
from relu_probe.callbacks.epoch_numbers import EpochNumbers
from relu_probe.callbacks.guarded_callback import GuardedCallback, guarded
from relu_probe.callbacks.limit_enforcement import LimitExceeded, enforce_limits
from relu_probe.callbacks.log_writer import LogWriter, epoch_logs
from relu_probe.callbacks.loss_recorder import STEPS_AT_ONCE, LossRecorder
from relu_probe.callbacks.report_source import ReportSource, report_source, selected_report
from relu_probe.measuring.counted_train_function import CountedTrainFunction
from relu_probe.measuring.train_step import arm_next_step, disarm
from relu_probe.report.fit_reports import FitReports
from relu_probe.report.history import History
from relu_probe.report.limit_monitor import LimitMonitor
from relu_probe.report.limits import Limits
from relu_probe.report.loss_jumps import LossJump
from relu_probe.report.report import Report
from relu_probe.structure.layer_selection import LayerSelection
from relu_probe.utils.callback_list import call_last, fit_under_way
from relu_probe.utils.validation import check_arguments, check_names


class ReluProbe(CopyableCallback, GuardedCallback):
    """Tells which ReLUs of the model are dead, epoch by epoch: in `.reports`, in `logs` and in TensorBoard.

    List it before callbacks that read its keys in `logs`: `dead_fraction`, `max_dead_fraction` (of the worst layer),
    `nan_fraction`, and `zero_gradient_fraction` where there are gradients. List it before `BackupAndRestore` too: then no
    epoch is lost if the training is killed between the two.

    Args:
        log_dir: TensorBoard's directory; the event files go to `{log_dir}/{name}`. None for no event files.
        data: None counts every training batch of the epoch, as trained, with no extra pass over any data. Otherwise the
            data that `measure` takes: it is measured at the end of each epoch, weights frozen, inference mode.
        freq: measures the epochs with `epoch % freq == 0`; in between `logs` repeat the last values.
        name: the name of the run directory; each probe of a fit needs its own. A probe with another name than the default
            writes `{name}_dead_fraction` to `logs`.
        layers: names, globs or layer objects (such as "encoder/*", of a nested model); None for every ReLU layer.
        strict: an error of measuring or logging stops the training; otherwise it is a warning, and the report says so.
        activation_sum: keep the sums of the activations of the training batches too, for `LayerReport.dormant`.
        images: TensorBoard gets a picture of each layer's history, with reports 1, 2, 4, 8, ... and at the end of the fit.
        text: TensorBoard gets each report as a table.
        at_start: measure `data` before the first step too, as a report with epoch -1: which neurons were born dead?
        max_dead, max_zero_gradient: limits on the dead and zero-gradient fraction of each layer, None for none.
        patience: the number of consecutive reports in which a layer may exceed its limit.
        on_limit: what happens then: "stop" ends the training after the epoch, "raise" fails it.
        verbose: 1 prints a line at the end of the fit, 0 does not; None does as `fit(verbose=)` says.
        layer_logs: `logs` get the dead fraction of each layer too, as `dead_fraction_<layer>`, with dots for slashes.
        keep: the number of newest reports that stay in `.reports`, for long trainings; None keeps all. Pictures then
            show those; dates of deaths (`.history`, `diagnose`) still rest on all.
        append: go on over many fits, as for an agent that trains a little again and again: one run in TensorBoard, epochs and
            training steps that rise, one line in all; `.reports` is not cleared. The fits are of one model, or of copies of it.

    Raises:
        ValueError, TypeError: at once if an argument is wrong; before the first step if the model or the data is wrong.

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

    _of_one_fit = ("_model", "model", "_source", "_selection", "_log_writer", "_counted_function")
    _shared = ("data", "layers")  # they are only read, and a Dataset cannot be copied

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
        on_limit: Literal["stop", "raise"] = "stop",
        keep: int | None = None,
        verbose: Literal[0, 1] | None = None,
        layer_logs: bool = False,
        append: bool = False,
    ) -> None:
        super().__init__(strict)
        switches = {"strict": strict, "activation_sum": activation_sum, "images": images, "text": text}
        switches |= {"at_start": at_start, "layer_logs": layer_logs, "append": append}
        check_arguments(log_dir=log_dir, data=data, freq=freq, name=name, keep=keep, verbose=verbose, **switches)
        self._limit_monitor = LimitMonitor(Limits(max_dead, max_zero_gradient), patience, on_limit)
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self.data, self.freq, self.name, self.layers = data, int(freq), name, layers
        self.activation_sum, self.at_start = activation_sum, at_start
        self.images, self.text, self.keep, self.verbose, self.layer_logs = images, text, keep, verbose, layer_logs
        self.append = append
        self._source: ReportSource  # for the time of a fit, as the selection
        self._selection: LayerSelection
        self._log_writer: LogWriter | None = None
        self._counted_function: CountedTrainFunction | None = None  # takes the steps of this epoch
        self._called_last = False  # whether Keras calls `_count_step` after all other callbacks' hooks
        self._reset()

    def _reset(self) -> None:
        self._epochs = EpochNumbers()
        self._fit_reports = FitReports(self.keep)
        self._losses = LossRecorder(self.keep, self.model)
        self._measuring = False  # in this epoch
        self._uncounted_steps = False  # whether training steps of this fit were taken without counting

    def __repr__(self) -> str:
        return f"<ReluProbe {self.name!r}: {self._fit_reports}>"

    @property
    def reports(self) -> list[Report]:
        """The reports of the newest fit, oldest first; cleared when a fit begins, unless `append` is set."""
        return self._fit_reports.reports

    @property
    def report(self) -> Report | None:
        """The newest report, None before the first."""
        return self._fit_reports.newest

    @property
    def history(self) -> History:
        """`history(probe.reports)`, including what the reports that `keep` dropped told."""
        return self._fit_reports.history

    @property
    def loss_jumps(self) -> list[LossJump]:
        """For each epoch the training step whose loss rose most above the mean loss of the epoch so far.

        The size of its update, where the steps return no loss. With `keep`: of the newest epochs, and the largest before.
        """
        self._follow_losses()
        return self._losses.jumps

    def set_model(self, model: Any) -> None:
        """Keras's hook, the first of a fit: follows the losses that an interrupted fit has left, with its own model and steps."""
        self._follow_losses()
        super().set_model(model)

    @guarded(ValueError)
    def on_train_begin(self, logs: Any = None) -> None:
        """Forgets the previous fit, unless this one is appended, and checks all that can be checked before the first step."""
        appended = self.append and self._log_writer is not None
        if not appended:
            self._close()
            self._reset()
        self._epochs.begin_fit()
        self._fit_reports.begin_fit()
        check_names(self.name, [c.name for c in getattr(fit_under_way(), "callbacks", []) if isinstance(c, ReluProbe)])
        self._selection = LayerSelection(self.layers, self.model)
        self._source = report_source(self.data, activation_sum=self.activation_sum)
        self._error_policy = self._source.error_policy(self.model, strict=self.strict)
        self._source.begin_fit(self.model, self._losses.tracker.steps)
        if not appended:
            self._limit_monitor.restart(gradients=self._source.has_gradients(self.model))
            self._log_writer = LogWriter(self)
            self._attempt("logging", self._log_writer.open)
        self._called_last = call_last(self._count_step)

    @guarded()
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Resets the counts, if the epoch is measured."""
        epoch = self._epochs.of(epoch)
        if epoch == 0 and self.at_start:
            self._measure_and_log(-1)
        self._measuring, self._counted_function = epoch % self.freq == 0, None
        # Late layers are counted from now on: by now all probes of the fit have read the counters that lack them.
        if self._selection.add_late_layers() and self._source.add_late_layers(self.model):
            self._uncounted_steps = True
        if self._measuring:
            steps = self._losses.tracker.steps if self._uncounted_steps else None
            self._attempt("measuring", lambda: self._source.begin_epoch(self.model, steps))
        self._losses.begin_epoch(self.model, epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Makes the next training step a counted one."""
        if not self._called_last:
            self._count_step()

    @guarded()
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notes the loss, or how far the weights have moved if a training step of the user's returns none."""
        if len(self._losses.pending) == STEPS_AT_ONCE:  # the newest waits: it may be the last of the epoch
            self._follow_losses()
        if not self._losses.note_loss(batch, logs):
            self._attempt("dating", lambda: self._losses.note_update(self.model))

    @guarded(LimitExceeded)
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Makes the report of the epoch, logs it, and enforces the limits."""
        disarm(self.model)
        epoch = self._epochs.of(epoch)
        self._counted_function = None  # it holds the model
        self._losses.end_epoch(self.model)
        self._follow_losses()
        if self._measuring:
            self._measure_and_log(epoch)
        else:
            self._uncounted_steps = True
        if logs is not None:
            gradients, layers = self._source.has_gradients(self.model), self._selection.keys if self.layer_logs else ()
            logs.update(epoch_logs(self.report, self.name, expects_gradients=gradients, layers=layers))
        if self._measuring:
            report, errors = self._fit_reports.of(epoch), self._error_policy.reasons
            enforce_limits(self._limit_monitor, report, self.model, epoch, errors)

    @guarded()
    def on_train_end(self, logs: Any = None) -> None:
        """Completes the event file."""
        if (writer := self._log_writer) is not None:
            self._attempt("logging", lambda: writer.finish(last=not self.append))
            complete = "logging" not in self._error_policy
            self._attempt("telling", lambda: writer.print_end(self._fit_reports, complete=complete))
        self._close()

    def log_revived(self, counts: Mapping[str, int], epoch: int) -> None:
        """Writes how many neurons of each layer `Revive` has revived to the event file."""
        if (writer := self._log_writer) is not None:
            self._attempt("logging", lambda: writer.write_revived(counts, self._epochs.of(epoch)))

    @guarded()
    def _count_step(self) -> None:
        try:
            self._arm()
        except BaseException:  # an interrupt, which ends the fit
            disarm(self.model)
            raise

    def _arm(self) -> None:
        if self._counted_function is not None and self._counted_function.rearm():
            return
        if self._measuring and self.data is None and not self._error_policy.is_switched_off("measuring"):
            self._counted_function = arm_next_step(self.model, partly_counted=self.freq > 1)

    def _follow_losses(self) -> None:
        if losses := self._losses.take_pending():
            self._attempt("dating", lambda: self._losses.follow(losses, self.model, getattr(self, "params", None)))

    def _measure_and_log(self, epoch: int) -> None:
        self._attempt("measuring", lambda: self._measure(epoch))
        if self._error_policy.reasons and not self._fit_reports.newest_fit_has_reports:  # an empty one, to say why
            self._fit_reports.add(Report(epoch=epoch, source=self._source.kind, incomplete=self._error_policy.reasons))
        self._attempt("logging", lambda: self._log(epoch))
        self._attempt("telling", self._print_nan)

    def _measure(self, epoch: int) -> None:
        steps = self._losses.tracker.epoch_steps
        report = selected_report(self._source, self._selection, self.model, steps, strict=self.strict)
        self._fit_reports.check_widths(report)
        self._fit_reports.add(replace(report, epoch=epoch, incomplete=self._incomplete))

    def _log(self, epoch: int) -> None:
        if self._log_writer is not None and self._fit_reports.of(epoch) is not None:
            self._log_writer.write(self._fit_reports, epoch)

    def _print_nan(self) -> None:
        if self._log_writer is not None and self.report is not None:
            self._log_writer.print_nan(self.report)

    @property
    def _incomplete(self) -> str:
        return "; ".join(filter(None, (self._error_policy.reasons, self._selection.incomplete)))

    def _attempt(self, part: str, work: Callable[[], None]) -> None:
        """Runs a part of the probe. An error does not stop the fit: it switches the part off, with one warning.

        The newest report of the fit tells of it. With `strict` the error is raised.
        """
        if not self._error_policy.run(part, work):
            self._fit_reports.mark_incomplete(self._incomplete)

    def _close(self) -> None:
        """Closes the event file; not with `append`, where the next fit goes on in it, also after an error."""
        if self._log_writer is not None and not self.append:
            self._log_writer.close()
            self._log_writer = None

    def __getstate__(self) -> dict[str, Any]:
        self._follow_losses()  # while the model is known
        return super().__getstate__()
