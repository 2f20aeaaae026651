"""Where the reports of a fit are shown: TensorBoard's event files, Keras's `logs`, the console."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import nan
from typing import Any, ClassVar

from relu_probe.diagnosis.nan_messages import nan_line
from relu_probe.report.fit_reports import FitReports
from relu_probe.report.report import Report
from relu_probe.report.summary import end_of_fit
from relu_probe.tensorboard.summaries import Summaries, how_to_open
from relu_probe.utils.distributed import is_chief

_LOGGED = ("dead_fraction", "max_dead_fraction", "nan_fraction")


class LogWriter:
    """Writes the reports of one fit to event files, and lines on the first NaN and on the end to the console.

    Only the chief worker writes.

    Args:
        probe: the `ReluProbe`, in a fit.
    """

    hinted: ClassVar[bool] = False  # whether this process has printed how to open TensorBoard

    def __init__(self, probe: Any) -> None:
        self._chief, self._name, self._quiet = is_chief(probe.model.distribute_strategy), probe.name, _is_quiet(probe)
        self._nan_printed = self._end_printed = False
        self._summaries: Summaries | None = None
        if probe.log_dir is not None and self._chief:
            options = {"images": probe.images, "text": probe.text, "keep": probe.keep}
            self._summaries = Summaries(probe.log_dir, probe.name, **options)

    def open(self) -> None:
        """Opens the event file.

        Raises:
            OSError, tf.errors.OpError: the directory cannot be written to.
        """
        if self._summaries is not None:
            self._summaries.open()

    def write(self, reports: FitReports, epoch: int) -> None:
        """Writes the newest report to the event file, at step `epoch`."""
        if self._summaries is not None and reports.newest is not None:
            self._summaries.write(reports.newest, epoch, reports.deaths())

    def write_revived(self, counts: Mapping[str, int], epoch: int) -> None:
        """Writes the number of neurons that were revived in each layer, at step `epoch`."""
        if self._summaries is not None:
            self._summaries.write_revived(counts, epoch)

    def print_nan(self, report: Report) -> None:
        """Prints a line on the first report with NaN, whose neurons no fraction includes."""
        if not self._nan_printed and (line := nan_line(report)):
            self._nan_printed = True
            if self._chief:
                print_line(f"\n{line}")

    def finish(self, *, last: bool = True) -> None:
        """Writes what is written at the end of a fit; `last` tells whether no other fit will be appended."""
        if self._summaries is not None:
            self._summaries.finish(last=last)

    def print_end(self, reports: FitReports, *, complete: bool) -> None:
        """Prints, once, what the newest report found and, once a process, the command that shows the event files.

        Args:
            reports: the reports of the fit.
            complete: whether all event files were written.
        """
        if self._quiet or self._end_printed:
            return
        if self._chief and (report := reports.newest) is not None:
            self._end_printed = True
            who = "relu_probe" if self._name == "relu_probe" else f"relu_probe ({self._name})"
            print_line(f"{who}: {end_of_fit(report.layers, report.unseen, reports.deaths())}")
        if self._summaries is not None and complete and not LogWriter.hinted:
            LogWriter.hinted = True
            print_line(how_to_open(self._summaries.log_dir))

    def close(self) -> None:
        """Closes the event file."""
        if self._summaries is not None:
            self._summaries.close()


def epoch_logs(
    report: Report | None, name: str, *, expects_gradients: bool, layers: Iterable[str] = ()
) -> dict[str, float]:
    """The entries of Keras's `logs` for an epoch: plain floats, keys without a slash.

    The keys must be the same in every epoch, measured or not, or CSVLogger and History get out of step.

    Args:
        report: the newest report, None before the first.
        name: the probe's name, the keys' prefix unless it is the default.
        expects_gradients: whether reports have gradients; for epochs in which nothing was measured yet.
        layers: the names of the layers that get keys of their own, `dead_fraction_<layer>` with dots for slashes.
    """
    prefix = "" if name == "relu_probe" else f"{name}_"
    report = report or Report.empty()
    logs = {f"{prefix}{name}": float(getattr(report, name)) for name in _LOGGED}
    for layer in layers:
        dead = report.layers[layer].dead_fraction if layer in report.layers else nan
        logs[f"{prefix}dead_fraction_{layer.replace('/', '.')}"] = float(dead)
    if report.has_gradients if report.samples else expects_gradients:
        logs[f"{prefix}zero_gradient_fraction"] = float(report.zero_gradient_fraction)
    return logs


def _is_quiet(probe: Any) -> bool:
    """Whether a probe prints no line at the end of a fit, as it or else the fit was asked not to."""
    of_fit = (getattr(probe, "params", None) or {}).get("verbose")
    return bool((of_fit if probe.verbose is None else probe.verbose) == 0)


def print_line(text: str) -> None:
    """Prints, unless the terminal is closed or cannot show the text: that must not cost a trained model."""
    with suppress(OSError, ValueError):
        print(text)
