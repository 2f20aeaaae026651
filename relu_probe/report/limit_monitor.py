"""Has a training been above its limits for too long? It reads reports, one after another; NumPy only."""

from relu_probe.report.limits import Excess, Limits, explain
from relu_probe.report.report import Report
from relu_probe.utils.validation import is_whole

ACTIONS = ("stop", "raise")


class LimitMonitor:
    """Counts for each layer the reports in a row in which it is above a limit.

    `EarlyStopping` cannot do this: the dead fraction of a healthy run stays at 0 and so never improves.

    Args:
        limits: none of them means no guard at all.
        patience: so many reports in a row may be above a limit.
        on_limit: what the probe does then, "stop" or "raise".

    Raises:
        ValueError: an argument that cannot be, or one that has no effect.

    >>> from relu_probe.report.layer_report import LayerReport
    >>> half_dead = Report({"hidden": LayerReport(samples=8, positions=8, active=[0, 8])})
    >>> guard = LimitMonitor(Limits(max_dead=0.4), patience=1)
    >>> guard.follow(half_dead)
    ''
    >>> print(guard.follow(half_dead).splitlines()[0])
    1 of 1 layers above a limit. hidden: 1 of 2 neurons dead (50.0%, max_dead=0.4) on 8 samples; neurons 0
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
        self._above: dict[tuple[str, str], int] = {}  # (layer, limit) -> reports in a row

    def restart(self, *, gradients: bool) -> None:
        """A fit begins, whose reports have gradients or not.

        Raises:
            ValueError: there is a limit on gradients, and there will be none.
        """
        self._above = {}
        if self.limits.max_zero_gradient is not None and not gradients:
            raise ValueError(
                f"max_zero_gradient={self.limits.max_zero_gradient:g} needs gradients, and data gives none; expected "
                "data=(x, y) and a model compiled with a loss. Pass labels, or leave max_zero_gradient out."
            )

    def follow(self, report: Report) -> str:
        """What is to be said once a layer was above a limit in more than `patience` reports in a row, else ""."""
        found = self.limits.exceeded_by(report)
        self._above = {_key(excess): self._above.get(_key(excess), 0) + 1 for excess in found}
        late = [excess for excess in found if self._above[_key(excess)] > self.patience]
        return explain(report, late) if late else ""


def _key(excess: Excess) -> tuple[str, str]:
    return excess.layer, excess.limit
