"""The end of a fit whose reports exceed a limit for too long."""

from typing import Any

from relu_probe.callbacks.log_writer import print_line
from relu_probe.report.limit_monitor import LimitMonitor
from relu_probe.report.report import Report
from relu_probe.utils.distributed import found_by_any


class LimitExceeded(RuntimeError):
    """A limit was exceeded for too long, and `on_limit` is "raise"."""


def enforce_limits(monitor: LimitMonitor, report: Report | None, model: Any, epoch: int, errors: str) -> None:
    """Ends the fit after this epoch if a limit was exceeded for too long, on any worker.

    Args:
        monitor: follows the reports of this worker.
        report: the report of the epoch, None if an error prevented it.
        model: the model that is trained.
        epoch: the epoch that ends.
        errors: the errors of this worker's probe.

    Raises:
        LimitExceeded: the fit ends, and `monitor.on_limit` is "raise".
    """
    if not (why := _exceeded_limit(monitor, report, model.distribute_strategy, errors)):
        return
    model.stop_training = True
    if monitor.on_limit == "raise":
        raise LimitExceeded(f"relu_probe: training failed in epoch {epoch}: {why}")
    print_line(f"\nrelu_probe: training stopped after epoch {epoch}: {why}")


def _exceeded_limit(monitor: LimitMonitor, report: Report | None, strategy: Any, errors: str) -> str:
    """Returns why the fit must end, "" if it goes on. All workers agree.

    A worker that lost a report would otherwise train on after the others ended, and wait for them for ever.
    """
    why = "" if report is None else monitor.follow(report)
    if monitor.limits and found_by_any(strategy, bool(why)):
        return why or f"a limit was exceeded on another worker. This one lost a report: {errors}"
    return ""
