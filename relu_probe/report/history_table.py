"""Tables of a history: one with a row and a sparkline for each layer, one with a row for each change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from relu_probe.report.deaths import FirstDeath
from relu_probe.report.layer_history import LayerHistory
from relu_probe.report.layer_report import Floats
from relu_probe.report.table import ReportCells, share_text
from relu_probe.report.text_table import if_printable
from relu_probe.utils.foreign_text import shown

_HEADERS = ["layer", "dead", "born\ndead", "never\nactive", "died", "revived", "first death", "dead\nfraction"]
_OPTIONAL = (5, 2, 3, 4, 6)  # the columns that a narrow terminal does without
_TITLE = "When ReLU neurons died and revived"
_MAX_SPARKS = 24


def history_cells(layers: Mapping[str, LayerHistory]) -> ReportCells:
    """Returns the texts of a table with a row for each layer: its newest report, its changes, and its first death."""
    epochs = [int(epoch) for layer in layers.values() for epoch in layer.epochs]
    when = f", epochs {min(epochs)} to {max(epochs)}" if epochs else ""
    rows = [[shown(name), *_row(layer)] for name, layer in layers.items()]
    marked = [i for i, layer in enumerate(layers.values()) if np.any(layer.dead_since >= 0)]
    return ReportCells(f"{_TITLE}{when}", _HEADERS, rows, optional=_OPTIONAL, marked=marked)


def change_cells(layers: Mapping[str, LayerHistory]) -> ReportCells:
    """Returns the texts of a table with a row for each layer's first report, and for each in which neurons died or revived."""
    rows = []
    for name, layer in layers.items():
        for i, epoch in enumerate(layer.epochs):
            died, revived = int(layer.died[i].sum()), int(layer.revived[i].sum())
            if not i or died or revived:
                rows.append([shown(name), str(epoch), _dead(layer, i), f"{died:,}", f"{revived:,}"])
    return ReportCells(_TITLE, ["layer", "epoch", "dead", "died", "revived"], rows)


def sparkline(fractions: Iterable[float]) -> str:
    """Returns a character for each fraction, higher for a larger one; the lowest is exactly 0, a space is nan.

    Of more than 24 fractions, neighbours share a character, which shows the largest.

    >>> sparkline([0.0, 0.001, 0.5, float("nan"), 1.0])
    '▁▂▅ █'
    """
    levels = if_printable("▁▂▃▄▅▆▇█", "_.:-=+*#")
    parts = np.array_split(np.array(list(fractions)), min(_MAX_SPARKS, len(list(fractions))))
    return "".join(_spark(part, levels) for part in parts)


def _spark(fractions: Floats, levels: str) -> str:
    known = fractions[~np.isnan(fractions)]
    return levels[int(np.ceil(known.max() * (len(levels) - 1)))] if len(known) else " "


def _row(layer: LayerHistory) -> list[str]:
    newest = max(np.flatnonzero(layer.measured).tolist(), default=0)
    counts = (layer.born_dead, layer.never_active, layer.died, layer.revived)
    return [
        _dead(layer, newest),
        *(f"{np.count_nonzero(mask):,}" for mask in counts),
        _first_death(layer),
        sparkline(layer.dead_fraction),
    ]


def _dead(layer: LayerHistory, report: int) -> str:
    if not layer.measured[report]:
        return "-"
    return share_text(int(layer.dead_neurons[report]), float(layer.dead_fraction[report]))


def _first_death(layer: LayerHistory) -> str:
    """Returns when the first of the neurons that are dead now, and were active once, died."""
    first = FirstDeath.of(layer.dead_since >= 0, layer, layer.last_active)
    if first is None:
        return "-"
    return f"epoch {first.epoch}" + ("" if first.step is None else f", step {first.step:,}")
