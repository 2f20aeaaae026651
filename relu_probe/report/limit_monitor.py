"""Limits on the reports of a training, with a patience."""

from relu_probe.report.limits import ExceededLimit, Limits
from relu_probe.report.report import Report
from relu_probe.utils.validation import is_whole

ACTIONS = ("stop", "raise")


class LimitMonitor:
    """Counts for each layer the consecutive reports in which it exceeds a limit.

    `EarlyStopping` cannot do this: the dead fraction of a healthy run stays at 0, and so never improves.

    Args:
        limits: without any limit, the monitor does nothing.
        patience: the number of consecutive reports in which a layer may exceed a limit.
        on_limit: what the probe does then, "stop" or "raise".

    Raises:
        ValueError: an argument is wrong, or has no effect.

    >>> from relu_probe.report.layer_report import LayerReport
    >>> half_dead = Report({"hidden": LayerReport(samples=8, positions=8, active=[0, 8])})
    >>> monitor = LimitMonitor(Limits(max_dead=0.4), patience=1)
    >>> monitor.follow(half_dead)
    ''
    >>> print(monitor.follow(half_dead).splitlines()[0])
    hidden: 1 of 2 dead (limit 40 %) on 8 samples; neuron 0
    """

    def __init__(self, limits: Limits, patience: int = 0, on_limit: str = "stop") -> None:
        if not is_whole(patience, least=0):
            raise ValueError(f"patience is {patience!r}; expected a whole number of reports >= 0.")
        if on_limit not in ACTIONS:
            raise ValueError(f"on_limit is {on_limit!r}; expected 'stop' or 'raise'.")
        if not limits and (patience or on_limit != "stop"):
            raise ValueError(
                f"patience={patience} and on_limit={on_limit!r} without a limit have no effect; expected a limit. "
                "Pass max_dead=0.5, for example."
            )
        self.limits, self.patience, self.on_limit = limits, patience, on_limit
        self._reports_above: dict[tuple[str, str], int] = {}  # (layer, limit) -> consecutive reports above it

    def restart(self, *, gradients: bool) -> None:
        """Forgets all reports, at the beginning of a fit.

        Args:
            gradients: whether the reports of the fit will have gradients.

        Raises:
            ValueError: there is a limit on gradients, and there will be none.
        """
        self._reports_above = {}
        if self.limits.max_zero_gradient is not None and not gradients:
            raise ValueError(
                f"max_zero_gradient={self.limits.max_zero_gradient:g} needs gradients, and data gives none; expected "
                "data=(x, y) and a model compiled with a loss. Pass labels, or leave max_zero_gradient out."
            )

    def follow(self, report: Report) -> str:
        """Returns an error text if a layer exceeds a limit in more than `patience` consecutive reports, else ""."""
        exceeded = self.limits.exceeded_by(report.layers)
        self._reports_above = {_key(one): self._reports_above.get(_key(one), 0) + 1 for one in exceeded}
        lasting = [one for one in exceeded if self._reports_above[_key(one)] > self.patience]
        if not lasting:
            return ""
        return report.explain(lasting)


def _key(exceeded: ExceededLimit) -> tuple[str, str]:
    return exceeded.layer, exceeded.limit
