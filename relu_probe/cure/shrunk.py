"""The result of `shrink`: the smaller model, what was removed, and what was left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.markup import html_table
from relu_probe.report.report import Report
from relu_probe.report.share import percent_digits
from relu_probe.report.table import ReportCells
from relu_probe.report.text_table import terminal_width, text_table, wrapped
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.wording import number

Indices = NDArray[np.intp]


class LayerSize(NamedTuple):
    """The size of a layer before and after: its units, which are None for a layer that has none of its own, and parameters."""

    name: str
    units: tuple[int, int] | None
    parameters: tuple[int, int]


@dataclass(frozen=True, eq=False, repr=False)
class Shrunk:
    """What `shrink` made. `str()` is a table.

    Args:
        model: the smaller model.
        removed: layer name -> `(n,)` int, the units that it lost, as they were numbered before.
        left: name of a ReLU layer -> reason -> `(n,)` int, the neurons that were to be removed and are still there.
        report: the report of the model on the data, before.
        sizes: the layers with other numbers of parameters than before.
        seconds: of a prediction of one batch, before and after: medians, measured in turn in this process.
        largest_difference: the largest absolute difference between predictions of the two models on the data.
        parameters: the numbers of parameters of the model, before and after.
        optimizer_reset: why the optimizer starts without its state, "" if the state was carried over.
    """

    model: Any
    removed: Mapping[str, Indices]
    left: Mapping[str, Mapping[str, Indices]]
    report: Report
    sizes: tuple[LayerSize, ...]
    seconds: tuple[float, float]
    largest_difference: float
    parameters: tuple[int, int]
    optimizer_reset: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "removed", MappingProxyType(dict(self.removed)))
        object.__setattr__(self, "left", MappingProxyType({key: dict(why) for key, why in self.left.items()}))

    @property
    def units_removed(self) -> int:
        """The number of units that were removed."""
        return sum(len(units) for units in self.removed.values())

    def __repr__(self) -> str:
        return f"<Shrunk: {self._summary()}>"

    def __str__(self) -> str:
        cells = self._cells()
        rows = [*cells.rows, None, cells.total]
        table = [text_table(cells.headers, rows, terminal_width())] if cells.rows else []
        return "\n".join([cells.title, *table, *(line for note in cells.notes for line in wrapped(note))])

    def _repr_html_(self) -> str:
        return html_table(self._cells())

    def _cells(self) -> ReportCells:
        headers = ["layer", "units\nbefore", "after", "parameters\nbefore", "after"]
        total = ["total", "", "", *(f"{count:,}" for count in self.parameters)]
        return ReportCells(f"Shrunk: {self._summary()}", headers, [*map(_row, self.sizes)], total, self._notes())

    def _summary(self) -> str:
        return f"{number(self.units_removed, 'unit')} removed, {_fewer(self.parameters)} parameters"

    def _notes(self) -> list[str]:
        before, after = (1000 * seconds for seconds in self.seconds)
        notes = [
            f"Predictions on {number(self.report.samples, 'sample')} agree: they differ by {self.largest_difference:.3g} at most.",
        ]
        if self.units_removed:
            faster = f"{before / after:.3g} times as fast"
            notes.append(f"Prediction of one batch: {before:.3g} ms before, {after:.3g} ms after, {faster}.")
        notes += [
            f"{shown(name)}: {len(neurons):,} left: {shown(reason, 300)}."
            for name, reasons in self.left.items()
            for reason, neurons in reasons.items()
        ]
        notes += [
            f"{shown(name)}: {np.count_nonzero(layer.nan):,} not judged: a NaN reached them, and diagnose says where it comes from."
            for name, layer in self.report.layers.items()
            if np.any(layer.nan)
        ]
        if self.optimizer_reset:
            notes.append(f"The optimizer starts without its state: {shown(self.optimizer_reset, 300)}")
        return notes


def _row(size: LayerSize) -> list[str]:
    units = ["", ""] if size.units is None else [f"{count:,}" for count in size.units]
    return [shown(size.name), *units, *(f"{count:,}" for count in size.parameters)]


def _fewer(parameters: tuple[int, int]) -> str:
    before, after = parameters
    return f"{percent_digits((before - after) / max(before, 1))}% fewer" if after < before else "as many"
