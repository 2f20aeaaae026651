"""The block of a `watch`: its reports, epoch by epoch if the loop tells when an epoch ends."""

import os
from dataclasses import replace
from typing import Any

from relu_probe.counting.counters import Counters
from relu_probe.measuring.nothing_counted import warn_if_nothing_is_counted
from relu_probe.report.fit_reports import FitReports
from relu_probe.report.history import History
from relu_probe.report.loss_jumps import LossJump
from relu_probe.report.report import Report
from relu_probe.structure.layer_matching import select_layers
from relu_probe.tensorboard.summaries import Summaries
from relu_probe.utils.distributed import is_chief
from relu_probe.utils.error_policy import ErrorPolicy
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.validation import is_whole


class Watch:
    """The counts of a `watch` block. `watch` makes it; `report()` reads it, in the block or after it, when it stays the same.

    Args:
        model: the watched model.
        counters: its counters.
        layers: what `watch` got.
        log_dir: TensorBoard's directory; None for no event file.
        name: the name of the run directory.
    """

    loss_jumps: tuple[LossJump, ...] = ()  # for `diagnose`: the loop does not tell its loss

    def __init__(
        self, model: Any, counters: Counters, layers: Any, log_dir: str | os.PathLike[str] | None, name: str
    ) -> None:
        self._model_name = model.name
        self._counters = counters
        self._layers = layers
        self._counted: Report | Exception | None = None  # what the block counted, or why nothing, once it has ended
        self._fit_reports, self._errors = FitReports(), ErrorPolicy(strict=False)
        self._summaries: Summaries | None = None
        if log_dir is not None and is_chief(model.distribute_strategy):
            self._summaries = Summaries(os.fspath(log_dir), name)
            self._summaries.open()

    def __repr__(self) -> str:
        counted = "its block has not ended" if self._counted is None else repr(self._counted)
        found = self._fit_reports if self.reports else counted
        return f"<Watch of model {shown(repr(self._model_name))}: {found}>"

    @property
    def reports(self) -> list[Report]:
        """The reports of `end_epoch`, oldest first."""
        return self._fit_reports.reports

    @property
    def history(self) -> History:
        """`history(w.reports)`."""
        return self._fit_reports.history

    def report(self, *, epoch: int | None = None, reset: bool = False) -> Report:
        """The `Report` of every call of the model since the block or, after `end_epoch`, the epoch began, with source "watch".

        If no ReLU of the model can be counted, it has no layers, `unseen` has the reasons, and a warning says so. After a
        block that counted no call since its last `end_epoch`, it is the report of that epoch.

        Args:
            epoch: the epoch that the report gets.
            reset: begin again from zero. The calls of the last activities, `LayerReport.last_active`, stay.

        Raises:
            RuntimeError: the model was not called, or `reset` comes after the block.
        """
        report = self._read() if self._counted is None else self._counted
        if isinstance(report, Exception):
            raise report
        if not report.samples and self._counted is not None and self.reports:
            return self.reports[-1]
        if reset:
            self._check_in_block()
            self._counters.reset()
        if not warn_if_nothing_is_counted(report) and not report.samples:
            raise RuntimeError(
                f"watch counted no call of model {shown(repr(self._model_name))}: it was not called in the block; or only by a "
                "fit with a ReluProbe or by measure, which have reports of their own; or only by a tf.function that was traced "
                "before the first watch, which runs without the probes. Make or first call the tf.function inside the block."
            )
        return replace(report, epoch=epoch)

    def end_epoch(self, epoch: int) -> Report:
        """Returns the report of an epoch, appends it to `reports`, writes it to the event file, and begins again from zero.

        An error of writing does not stop the loop: there is a warning, and nothing more is written.

        Args:
            epoch: the number of the epoch; the step in TensorBoard. It must rise.

        Raises:
            ValueError: `epoch` is no whole number, or not above that of the last report.
            RuntimeError: the model was not called in this epoch, or the block has ended.
        """
        self._check_in_block()
        last = self.reports[-1].epoch if self.reports else None
        least = 0 if last is None else last + 1
        if not is_whole(epoch, least):
            after = "" if last is None else f", after epoch {last}"
            raise ValueError(f"epoch is {epoch!r}; expected a whole number of at least {least}{after}.")
        self._fit_reports.add(self.report(epoch=epoch, reset=True))
        self._errors.run("logging", self._write)
        self._fit_reports.mark_incomplete(self._errors.reasons)
        return self.reports[-1]

    def end(self) -> None:
        """Keeps what was counted: later calls of the model, and the next block, change the counters. Completes the event file."""
        if self._counted is None:
            self._counted = self._read()
        if self._summaries is not None:
            self._errors.run("logging", self._summaries.finish)

    def close(self) -> None:
        """Closes the event file. One that is not complete counts as interrupted: a later block may go on with it."""
        if self._summaries is not None:
            self._summaries.close()
            self._summaries = None

    def _write(self) -> None:
        report = self.reports[-1]
        if self._summaries is not None and report.epoch is not None:
            self._summaries.write(report, report.epoch, self._fit_reports.deaths())

    def _check_in_block(self) -> None:
        if self._counted is not None:
            raise RuntimeError(
                "the block of this watch has ended; expected end_epoch and report(reset=True) inside it. Indent the line."
            )

    def _read(self) -> Report | Exception:
        if self._counters.failure is not None:
            return self._counters.failure
        try:
            report = self._counters.report("watch")
            if self._layers is None:
                return report
            return report.select(select_layers(self._counters.all_relus(), self._layers, self._counters.model))
        except Exception as error:
            return error
