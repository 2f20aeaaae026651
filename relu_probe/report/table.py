"""The table of a report: plain ASCII of at most 80 columns, the same on every terminal."""

import io
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relu_probe.report.layer_report import Floats, LayerReport, Mask, any_gradients, fraction, judged_mask, most_samples
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.wording import number

WIDTH = 80
_MAX_NAME = 300  # characters
_RULES = Box("    \n    \n -- \n    \n -- \n -- \n    \n    \n", ascii=True)


class ReportCells(NamedTuple):
    """The texts of a report's table, in no particular format: not escaped; "\\n" breaks a line.

    Args:
        title: the line above the table.
        headers: one for each column.
        rows: the cells of each layer.
        total: the cells of the total row.
        notes: lines below the table.
    """

    title: str
    headers: list[str]
    rows: list[list[str]]
    total: list[str]
    notes: list[str]


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
        title=f'ReLU report ({source or "empty"}{when}): "dead" is never active on the N samples',
        headers=["layer", "neurons", "dead", "zero\ngradient", rates, "N\nsamples", "N\npositions"],
        rows=[[shown(name, _MAX_NAME), *_row(layer, tau)] for name, layer in layers.items()],
        total=["total", *_total(layers)],
        notes=[*_notes(layers), *notes],
    )


def text_table(cells: ReportCells) -> str:
    """Returns a row for each layer, a total row, and the notes."""
    table = plain_table(cells.title, *cells.headers)
    for name, *row in cells.rows:
        table.add_row(Text(name), *row)
    table.add_section()
    table.add_row(*cells.total)
    return render(table) + "".join(f"\n{line}" for line in cells.notes)


def plain_table(title: str, first: str, *others: str) -> Table:
    """Returns an empty table with these column headers: the first column to the left, the others, numbers, to the right."""
    table = Table(
        title=Text(title),
        title_justify="left",
        title_style="",
        box=_RULES,
        header_style="",
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    table.add_column(first, overflow="fold", vertical="bottom", min_width=8)
    for header in others:
        table.add_column(header, justify="right", no_wrap=True, vertical="bottom")
    return table


def render(table: Table) -> str:
    """Returns the table as lines of at most `WIDTH` characters, without spaces at their ends."""
    out = io.StringIO()
    # In a notebook, rich would otherwise display the table itself and return nothing.
    console = Console(file=out, width=WIDTH, color_system=None, force_terminal=False, force_jupyter=False, emoji=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _row(layer: LayerReport, tau: float | None) -> list[str]:
    if not layer.measured:
        return [f"{layer.neurons:,}", "-", "-", "not measured", "0", "0"]
    return [
        f"{layer.neurons:,}",
        _share(judged_mask([layer], "dead")),
        _gradient_cell(layer),
        _rates(layer.activation_rate[layer.judged]) if tau is None else _share(layer.dormant(tau)[layer.judged]),
        f"{layer.samples:,}",
        f"{layer.positions:,}",
    ]


def _gradient_cell(layer: LayerReport) -> str:
    if layer.zero_gradient is not None and not (layer.frozen and not np.any(layer.with_gradient)):
        return _share(judged_mask([layer], "zero_gradient"))
    return "frozen" if layer.frozen else "-"


def _rates(rates: Floats) -> str:
    return f"{rates.min():.3f} {np.median(rates):.3f} {rates.max():.3f}" if len(rates) else "NaN"


def _total(layers: Mapping[str, LayerReport]) -> list[str]:
    measured = [layer for layer in layers.values() if layer.measured]
    dead = _share(judged_mask(measured, "dead")) if measured else "-"
    zero_gradient = _share(judged_mask(measured, "zero_gradient")) if any_gradients(measured) else "-"
    return [f"{sum(layer.neurons for layer in measured):,}", dead, zero_gradient, "", f"{most_samples(measured):,}", ""]


def _share(judged: Mask) -> str:
    """Returns the number and the share of the neurons in a mask over those that can be judged; "NaN" if there are none."""
    return f"{np.count_nonzero(judged):,} {fraction(judged):5.1%}" if len(judged) else "NaN"


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
