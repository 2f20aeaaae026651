"""Comparison of two reports of a model: which layers have more dead neurons, and by how much."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from relu_probe.report.layer_report import LayerReport
from relu_probe.report.report import Report
from relu_probe.report.text_table import terminal_width, text_table
from relu_probe.utils.foreign_text import shown, shown_names


class LayerChange(NamedTuple):
    """One layer in two reports; None where a report did not measure it."""

    name: str
    before: LayerReport | None
    after: LayerReport | None

    @property
    def rise(self) -> float:
        """The dead fraction after, less the one before; nan if one of them is not known."""
        if self.before is None or self.after is None:
            return float("nan")
        return self.after.dead_fraction - self.before.dead_fraction

    def worsened(self, tolerance: float) -> str:
        """Returns how the layer became worse by more than `tolerance`, or died as a whole; "" if it did not."""
        if self.before is None or self.after is None:
            return ""
        before, after, name = self.before, self.after, shown(self.name)
        numbers = f"from {_dead(before)} to {_dead(after)}"
        if _whole(after) and not _whole(before):
            return f"{name}: the whole layer died, {numbers}"
        if self.rise > tolerance + 1e-12:  # 0.15 - 0.1 is more than 0.05 in floating point
            return f"{name}: {numbers}"
        if np.mean(after.nan) - np.mean(before.nan) > tolerance:
            return (
                f"{name}: NaN at {np.count_nonzero(after.nan):,} of {after.neurons:,} neurons, {_dead(before)} before"
            )
        return ""


def compare(before: Report, after: Report) -> list[LayerChange]:
    """Returns the layers of both reports.

    >>> first, second = ({"conv": LayerReport(8, 8, active)} for active in ([1, 2, 3, 4], [0, 0, 3, 4]))
    >>> (change,) = compare(Report(first), Report(second))
    >>> change.worsened(tolerance=0.05)
    'conv: from 0 of 4 dead (0.0 %, N = 8) to 2 of 4 dead (50.0 %, N = 8)'
    """
    names = dict.fromkeys([*before, *after])
    measured = [{name: layer for name, layer in report.layers.items() if layer.measured} for report in (before, after)]
    return [LayerChange(name, measured[0].get(name), measured[1].get(name)) for name in names]


def not_compared(changes: Iterable[LayerChange]) -> str:
    """Returns which layers only one of the reports measured; "" if there are none."""
    names = [change.name for change in changes if change.before is None or change.after is None]
    return f"not in both reports: {shown_names(names)}" if names else ""


def change_table(changes: Iterable[LayerChange], before: str, after: str) -> str:
    """Returns a table with a row for each layer; the other arguments are the names of the reports."""
    rows = []
    for change in changes:
        parts = (change.before, change.after)
        cells = (
            "-" if part is None else f"{np.count_nonzero(part.dead):,} {part.dead_fraction:6.1%}" for part in parts
        )
        rise = "-" if np.isnan(change.rise) else f"{100 * change.rise:+.1f} points"
        samples = ("-" if part is None else f"{part.samples:,}" for part in parts)
        rows.append([shown(change.name, 300), *cells, rise, *samples])
    headers = ["layer", "dead\nbefore", "dead\nafter", "change", "N\nbefore", "N\nafter"]
    title = f"dead neurons: {shown(before)} -> {shown(after)}"
    return f"{title}\n{text_table(headers, rows, terminal_width())}"


def _whole(layer: LayerReport) -> bool:
    return bool(np.all(layer.dead))


def _dead(layer: LayerReport) -> str:
    dead = np.count_nonzero(layer.dead)
    return f"{dead:,} of {layer.neurons:,} dead ({100 * layer.dead_fraction:.1f} %, N = {layer.samples:,})"
