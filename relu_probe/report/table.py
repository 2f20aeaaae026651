"""The table of a report."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from relu_probe.report.layer_report import Floats, LayerReport, Mask, any_gradients, most_samples
from relu_probe.report.share import Share, percent_digits, pooled
from relu_probe.report.text_table import text_table, wrapped
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.wording import number

_MAX_NAME = 300  # characters


class ReportCells(NamedTuple):
    """The texts of a report's table, in no particular format: not escaped; "\\n" breaks a line.

    Args:
        title: the line above the table.
        headers: one for each column.
        rows: the cells of each layer.
        total: the cells of the total row; none for no such row.
        notes: lines below the table.
        optional: indices of the columns that a narrow terminal does without, the first to go first.
        marked: indices of the rows that HTML shades.
    """

    title: str
    headers: list[str]
    rows: list[list[str]]
    total: Sequence[str] = ()
    notes: Sequence[str] = ()
    optional: Sequence[int] = ()
    marked: Sequence[int] = ()


def report_cells(
    layers: Mapping[str, LayerReport],
    *,
    epoch: int | None = None,
    source: str = "",
    notes: Iterable[str] = (),
    tau: float | None = None,
) -> ReportCells:
    """Returns the texts of the table; see `Report` for the arguments, and `Report.table` for `tau`.

    Args:
        notes: further lines below the table.
    """
    rates = "activation rate\nmin median max" if tau is None else f"dormant\ntau = {tau:g}"
    when = "" if epoch is None else f", epoch {epoch}"
    return ReportCells(
        title=f'ReLU report ({shown(source) or "empty"}{when}): "dead" is never active on the N samples',
        headers=["layer", "neurons", "dead", "zero\ngradient", rates, "N\nsamples", "N\npositions"],
        rows=[[shown(name, _MAX_NAME), *_row(layer, tau)] for name, layer in layers.items()],
        total=["total", *_total(layers)],
        notes=[*_notes(layers), *notes],
        optional=(6, 4),  # the positions, the rates
        marked=[i for i, layer in enumerate(layers.values()) if _is_sick(layer)],
    )


def text_report(cells: ReportCells, width: int | None = None) -> str:
    """Returns a row for each layer, a total row, and the notes, in lines of `width` characters if that is possible.

    Args:
        cells: the texts.
        width: None for as wide as needed, each note on one line.
    """
    total = [None, cells.total] if cells.total else []
    table = text_table(cells.headers, [*cells.rows, *total], width, cells.optional)
    paragraphs = [[text] if width is None else wrapped(text, width=width) for text in (cells.title, *cells.notes)]
    return "\n".join([*paragraphs[0], table, *chain.from_iterable(paragraphs[1:])])


def _is_sick(layer: LayerReport) -> bool:
    return any(share.neurons for share in layer.shares.values())


def _row(layer: LayerReport, tau: float | None) -> list[str]:
    if not layer.measured:
        return [f"{layer.neurons:,}", "-", "-", "not measured", "0", "0"]
    return [
        f"{layer.neurons:,}",
        _share(layer.shares["dead"]),
        _gradient_cell(layer),
        _rates(layer.activation_rate[layer.judged])
        if tau is None
        else _share(_share_of(layer.dormant(tau)[layer.judged])),
        f"{layer.samples:,}",
        f"{layer.positions:,}",
    ]


def _gradient_cell(layer: LayerReport) -> str:
    if layer.has_gradients and not (layer.frozen and not np.any(layer.with_gradient)):
        return _share(layer.shares["zero_gradient"])
    return "frozen" if layer.frozen else "-"


def _rates(rates: Floats) -> str:
    if not len(rates):
        return "NaN"
    rates = np.sort(rates)  # np.median takes five times as long for a small layer
    median = (rates[(len(rates) - 1) // 2] + rates[len(rates) // 2]) / 2
    return f"{rates[0]:.3f} {median:.3f} {rates[-1]:.3f}"


def _total(layers: Mapping[str, LayerReport]) -> list[str]:
    measured = [layer for layer in layers.values() if layer.measured]
    dead = _share(pooled(measured, "dead")) if measured else "-"
    zero_gradient = _share(pooled(measured, "zero_gradient")) if any_gradients(measured) else "-"
    return [f"{sum(layer.neurons for layer in measured):,}", dead, zero_gradient, "", f"{most_samples(measured):,}", ""]


def _share(share: Share) -> str:
    return share_text(share.neurons, share.fraction)


def _share_of(judged: Mask) -> Share:
    return Share(int(np.count_nonzero(judged)), len(judged))


def share_text(count: int, share: float) -> str:
    """Returns a number of neurons and their share of those that can be judged; "NaN" if there are none.

    >>> share_text(1, 0.25), share_text(1, 0.0001), share_text(0, 0.0)
    ('1 25.0%', '1 <0.1%', '0  0.0%')
    """
    return "NaN" if np.isnan(share) else f"{count:,} {percent_digits(share):>4}%"


def _notes(layers: Mapping[str, LayerReport]) -> list[str]:
    notes = [
        f"NaN seen at {number(int(layer.nan.sum()), 'neuron')} of {shown(name)}: neither active nor dead."
        for name, layer in layers.items()
        if np.any(layer.nan)
    ]
    notes += [
        f"{shown(name)}: {layer.died or 0:,} died and {layer.revived or 0:,} revived since the previous report."
        for name, layer in layers.items()
        if layer.died or layer.revived
    ]
    return notes
