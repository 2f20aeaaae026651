"""Is a report alive enough? Limits on it, what exceeds them, and the words of a failing assertion. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from relu_probe.report.layer_report import LayerReport, Mask
from relu_probe.report.report import Report
from relu_probe.utils.layer_names import select
from relu_probe.utils.validation import check_fraction

SHOWN = 10  # neurons of a layer that a message names


class Excess(NamedTuple):
    """A layer with more dead neurons, or more without gradient, than a limit allows. `str()` says which."""

    layer: str
    limit: str  # "max_dead" or "max_zero_gradient"
    most: float
    mask: Mask  # (neurons,)
    nan: int  # of the mask, how many because of NaN
    samples: int

    @property
    def fraction(self) -> float:
        return float(np.mean(self.mask))

    def __str__(self) -> str:
        neurons, words = np.flatnonzero(self.mask), {"max_dead": "dead", "max_zero_gradient": "without gradient"}
        nan = f" or NaN ({self.nan:,})" if self.nan else ""
        first = ", ".join(map(str, neurons[:SHOWN])) + (", ..." if len(neurons) > SHOWN else "")
        return (
            f"{self.layer}: {len(neurons):,} of {len(self.mask):,} neurons {words[self.limit]}{nan} "
            f"({self.fraction:.1%}, {self.limit}={self.most:g}) on {self.samples:,} samples; neurons {first}"
        )


@dataclass(frozen=True)
class Limits:
    """The largest fraction of a layer's neurons that may be dead, or without gradient; None for no limit.

    They hold for each layer: a small layer that is dead as a whole hardly shows in the fraction of the model.

    Raises:
        ValueError: a limit outside [0, 1].

    >>> report = Report({"hidden": LayerReport(samples=8, positions=8, active=[0, 3, 8])})
    >>> print(*Limits(max_dead=0.1).exceeded_by(report))
    hidden: 1 of 3 neurons dead (33.3%, max_dead=0.1) on 8 samples; neurons 0
    """

    max_dead: float | None = None
    max_zero_gradient: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None:
                check_fraction(name, value)

    def __bool__(self) -> bool:
        return self != Limits()

    def __str__(self) -> str:
        return " and ".join(f"{name}={most:g}" for name, most in asdict(self).items() if most is not None)

    def exceeded_by(self, report: Report) -> list[Excess]:
        """What is known to be above a limit, the worst first. Of a layer that was not measured nothing is known."""
        found = [
            _excess(name, layer, limit, most)
            for name, layer in report.layers.items()
            for limit, most in asdict(self).items()
            if most is not None
        ]
        exceeded = [excess for excess in found if excess is not None and excess.fraction > excess.most]
        return sorted(exceeded, key=lambda excess: -excess.fraction)

    def missing_gradients(self, report: Report) -> str:
        """Why `max_zero_gradient` cannot be checked on this report; "" where it can."""
        layers = {name: layer for name, layer in report.layers.items() if layer.with_gradient is None}
        # A frozen layer has no gradient because it was asked to have none.
        without = [name for name, layer in layers.items() if not (layer.frozen and report.has_gradients)]
        if self.max_zero_gradient is None or not without:
            return ""
        return (
            f"max_zero_gradient={self.max_zero_gradient:g} needs gradients, and the report has none of "
            f"{', '.join(without)}; expected a report of a compiled model on (x, y). Compile the model and pass labels, "
            "name the other layers in layers=, or leave max_zero_gradient out."
        )


def assert_alive(report: Report, limits: Limits, layers: str | Iterable[str] | None = None) -> Report:
    """The report itself where no layer is above a limit; see `Report.assert_alive`."""
    __tracebackhide__ = True  # pytest shows the caller's line
    if not limits:
        raise ValueError("max_dead and max_zero_gradient are both None; expected a limit. Pass max_dead=0.0 or more.")
    expected = f"expected names or globs of {', '.join(report.layers) or 'a report that has layers'}."
    chosen = report if layers is None else report.select(select(report.layers, layers, expected=expected))
    if why := unmeasured(chosen):
        raise AssertionError(why)
    if why := limits.missing_gradients(chosen):
        raise ValueError(why)
    if found := limits.exceeded_by(chosen):
        raise AssertionError(explain(chosen, found))
    return report


def unmeasured(report: Report) -> str:
    """Why nothing can be said of some layer of the report; "" where there is none such."""
    unseen = [name for name, layer in report.layers.items() if not layer.measured]
    if report.layers and not unseen:
        return ""
    return (
        f"not measured: {', '.join(unseen) or 'the report has no layers'} (0 samples), so nothing is known of the neurons; "
        "expected at least 1 sample in each layer. Measure on data that reaches them, or name the other layers in layers=."
    )


def explain(report: Report, found: list[Excess]) -> str:
    """One line that says the worst of it, a line for each other excess, and the table's rows of these layers."""
    names = [name for name in report.layers if name in {excess.layer for excess in found}]
    head = f"{len(names)} of {len(report.layers)} layers above a limit. {found[0]}"
    return "\n".join([head, *map(str, found[1:]), "", str(report.select(names))])


def _excess(name: str, layer: LayerReport, limit: str, most: float) -> Excess | None:
    mask = layer.dead if limit == "max_dead" else layer.zero_gradient
    if mask is None or not layer.measured:
        return None
    nan = layer.nan & (layer.active == 0)  # not known to be dead, and not shown to be alive
    return Excess(name, limit, most, mask | nan, int(np.count_nonzero(nan)), layer.samples)
