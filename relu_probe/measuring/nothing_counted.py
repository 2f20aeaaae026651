"""The messages that some or all of a model's ReLUs cannot be counted."""

from collections.abc import Collection
from typing import Any

from relu_probe.report.report import Report
from relu_probe.structure.relu_layers import no_relu
from relu_probe.utils.error_policy import warn

_SHOWN = 5


def uncounted(report: Report, names: Collection[str] = ()) -> str:
    """Says which of these ReLUs cannot be counted, and why; of all, if the report has no layers. "" if there are none."""
    reasons = {name: why for name, why in report.unseen.items() if name in names or not report.samples}
    shown = [f"{name} ({why})" for name, why in list(reasons.items())[:_SHOWN]]
    more = len(reasons) - len(shown)
    what = "not counted" if names else "none of the model's ReLUs can be counted"
    return f"{what}: {', '.join(shown)}{f' and {more} more' * bool(more)}" if shown else ""


def warn_if_nothing_is_counted(report: Report) -> bool:
    """Warns if a report has no samples because its ReLUs cannot be counted, and returns whether that is so."""
    if report.samples or not report.unseen:
        return False
    warn(f"relu_probe: {uncounted(report)}.")
    return True


def check_any_relu(report: Report, model: Any) -> None:
    """Raises ValueError if the steps of a report ran the model, and no ReLU was found in it."""
    if not (report.layers or report.unseen or report.never_called):
        raise ValueError(no_relu(model))
