"""The result of `revive`: what was done to which neurons, and the way back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relu_probe.cure.edit import Change
from relu_probe.report.markup import html_table
from relu_probe.report.report import Report
from relu_probe.report.table import ReportCells
from relu_probe.report.text_table import terminal_width, text_table, wrapped
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.wording import number


@dataclass(frozen=True, eq=False, repr=False)
class LayerRevival:
    """What was done to one layer. The first three arrays have one entry for each revived neuron.

    Args:
        neurons: `(n,)` int, the revived neurons.
        cause: `(n,)` of str, why each was dead: "input", "zero weights", "bias" or "weights".
        action: `(n,)` of str, what was done to each.
        left: reason -> the sick neurons that were left as they are.
    """

    neurons: NDArray[np.intp]
    cause: NDArray[np.str_]
    action: NDArray[np.str_]
    left: Mapping[str, NDArray[np.intp]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "left", MappingProxyType(dict(self.left)))
        for array in (self.neurons, self.cause, self.action, *self.left.values()):
            array.flags.writeable = False

    def __repr__(self) -> str:
        left = sum(map(len, self.left.values()))
        return f"<LayerRevival: {number(len(self.neurons), 'neuron')} revived, {left:,} left>"


@dataclass(frozen=True, eq=False, repr=False)
class Revival:
    """What `revive` did. `str()` is a table.

    Args:
        layers: layer name -> `LayerRevival`, for each layer with dead or blocked neurons, in the order of the model.
        before: the report on the data before the revival.
        after: the report afterwards.
        validation_change: the largest absolute change of a prediction on the validation data; None without such data. On
            the data itself no prediction has changed.
    """

    layers: Mapping[str, LayerRevival]
    before: Report
    after: Report
    validation_change: float | None = None
    _changes: tuple[Change, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))

    @property
    def revived(self) -> int:
        """The number of revived neurons."""
        return sum(len(layer.neurons) for layer in self.layers.values())

    def undo(self) -> None:
        """Puts back, bit by bit, exactly what the revival touched: weights, moving statistics, optimizer slots.

        Raises:
            ValueError: one of these has changed since. Nothing is put back then.
        """
        if changed := [change.name for change in self._changes if not change.is_in_place()]:
            raise ValueError(
                f"{changed[0]} has changed since the revival{f', as {len(changed) - 1} others have' if changed[1:] else ''}; "
                "expected what the revival wrote. Undo a revival before the model is trained further."
            )
        for change in self._changes:
            change.undo()

    def __repr__(self) -> str:
        dead = sum(int(np.count_nonzero(layer.dead)) for layer in self.before.values())
        return f"<Revival: {self.revived:,} of {number(dead, 'dead neuron')} revived, on {self._samples}>"

    def __str__(self) -> str:
        cells = self._cells()
        table = [text_table(cells.headers, cells.rows, terminal_width())] if cells.rows else []
        return "\n".join([cells.title, *table, *(line for note in cells.notes for line in wrapped(note))])

    def _repr_html_(self) -> str:
        return html_table(self._cells())

    @property
    def _samples(self) -> str:
        return number(self.before.samples, "sample")

    def _cells(self) -> ReportCells:
        title = f"Revival: {number(self.revived, 'neuron')} revived on {self._samples}; no prediction on them changed"
        headers = ["layer", "neurons", "dead\nbefore", "revived", "dead\nafter", "what was done"]
        return ReportCells(title, headers, [self._row(name) for name in self.layers], notes=self._notes())

    def _row(self, name: str) -> list[str]:
        layer, before, after = self.layers[name], self.before[name], self.after[name]
        counts = (before.neurons, np.count_nonzero(before.dead), len(layer.neurons), np.count_nonzero(after.dead))
        return [shown(name), *(f"{count:,}" for count in counts), _actions(layer)]

    def _notes(self) -> list[str]:
        notes = [
            f"{shown(name)}: {len(neurons):,} left: {shown(reason, 300)}."
            for name, layer in self.layers.items()
            for reason, neurons in layer.left.items()
        ]
        if self.validation_change is not None:
            notes.append(f"Largest change of a prediction on the validation data: {self.validation_change:.3g}.")
        return notes


def _actions(layer: LayerRevival) -> str:
    counts: Counter[Any] = Counter(layer.action.tolist())
    return "\n".join(f"{action} {count:,}" for action, count in counts.most_common()) or "-"
