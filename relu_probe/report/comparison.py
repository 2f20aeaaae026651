"""Comparison of two reports of a model: which layers have more dead neurons, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from relu_probe.report.layer_report import LayerReport
from relu_probe.report.report import Report
from relu_probe.report.share import percent_digits
from relu_probe.report.table import share_text
from relu_probe.report.text_table import terminal_width, text_table
from relu_probe.utils.foreign_text import shown, shown_names
from relu_probe.utils.wording import number


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
        if after.nan_fraction - before.nan_fraction > tolerance:
            return f"{name}: NaN at {after.shares['nan'].neurons:,} of {number(after.neurons, 'neuron')}, {_dead(before)} before"
        return ""

    def nan_notes(self) -> Iterator[str]:
        """Yields a line on the NaN in each report: neither share includes these neurons."""
        for when, layer in (("before", self.before), ("after", self.after)):
            if layer is not None and np.any(layer.nan):
                found = number(layer.shares["nan"].neurons, "neuron")
                yield f"{shown(self.name)}: NaN {when} at {found}, neither active nor dead."


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


def change_table(changes: Sequence[LayerChange], before: str, after: str) -> str:
    """Returns a table with a row for each layer; the other arguments are the names of the reports."""
    rows = []
    for change in changes:
        parts = (change.before, change.after)
        cells = ("-" if part is None else share_text(part.shares["dead"].neurons, part.dead_fraction) for part in parts)
        samples = ("-" if part is None else f"{part.samples:,}" for part in parts)
        rows.append([shown(change.name, 300), *cells, _points(change.rise), *samples])
    headers = ["layer", "dead\nbefore", "dead\nafter", "change", "N\nbefore", "N\nafter"]
    title = f"dead neurons: {shown(before)} -> {shown(after)}"
    notes = [note for change in changes for note in change.nan_notes()]
    return "\n".join([title, text_table(headers, rows, terminal_width()), *notes])


def _points(rise: float) -> str:
    """Returns a rise of a fraction in percentage points, with one decimal, or one digit of a smaller rise than that shows."""
    if np.isnan(rise):
        return "-"
    points = 100 * rise
    return f"{points:+.1f} points" if round(points, 1) or not points else f"{points:+.1g} points"


def _whole(layer: LayerReport) -> bool:
    return bool(np.all(layer.dead))


def _dead(layer: LayerReport) -> str:
    """Returns the number of dead neurons and their share of those that can be judged, and how many cannot."""
    (dead, judged), (nan, _) = layer.shares["dead"], layer.shares["nan"]
    share = f"{percent_digits(layer.dead_fraction)} %, " if judged else ""
    return f"{dead:,} of {judged:,} dead{f', {nan:,} NaN' if nan else ''} ({share}N = {layer.samples:,})"
