"""How is a report printed? Plain ASCII of at most 80 columns, the same on every terminal."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from relu_probe.report.layer_report import LayerReport, Mask
    from relu_probe.report.report import Report

WIDTH = 80
_RULES = Box("    \n    \n -- \n    \n -- \n -- \n    \n    \n", ascii=True)


def report_table(report: Report, tau: float | None = None) -> str:
    """A row a layer, a total row, and notes on what the numbers alone would not say."""
    cells = report_cells(report, tau)
    table = plain_table(cells.title, *cells.headers)
    for name, *row in cells.rows:
        table.add_row(Text(name), *row)
    table.add_section()
    table.add_row(*cells.total)
    return render(table) + "".join(f"\n{line}" for line in cells.notes)


class ReportCells(NamedTuple):
    """What every table of a report says, in whatever format: texts, not yet escaped; "\\n" breaks a line."""

    title: str
    headers: list[str]
    rows: list[list[str]]
    total: list[str]
    notes: list[str]


def report_cells(report: Report, tau: float | None = None) -> ReportCells:
    rates = "activation rate\nmin median max" if tau is None else f"dormant\ntau = {tau:g}"
    return ReportCells(
        title=_title(report),
        headers=["layer", "neurons", "dead", "zero\ngradient", rates, "N\nsamples", "N\npositions"],
        rows=[[name, *_cells(layer, tau)] for name, layer in report.layers.items()],
        total=["total", *_total(report)],
        notes=_notes(report),
    )


def plain_table(title: str, first: str, *others: str) -> Table:
    """An empty table in the project's style: `first` on the left, numbers on the right."""
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
    out = io.StringIO()
    Console(file=out, width=WIDTH, color_system=None, force_terminal=False, force_jupyter=False, emoji=False).print(
        table
    )
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _title(report: Report) -> str:
    epoch = "" if report.epoch is None else f", epoch {report.epoch}"
    return f'ReLU report ({report.source or "empty"}{epoch}): "dead" is never active on the N samples'


def _cells(layer: LayerReport, tau: float | None) -> list[str]:
    if not layer.measured:
        return [f"{layer.neurons:,}", "-", "-", "not measured", "0", "0"]
    rate = layer.activation_rate
    return [
        f"{layer.neurons:,}",
        _share(layer.dead),
        _gradient_cell(layer),
        f"{rate.min():.3f} {np.median(rate):.3f} {rate.max():.3f}" if tau is None else _share(layer.dormant(tau)),
        f"{layer.samples:,}",
        f"{layer.positions:,}",
    ]


def _gradient_cell(layer: LayerReport) -> str:
    if layer.zero_gradient is not None and not (layer.frozen and not np.any(layer.with_gradient)):
        return _share(layer.zero_gradient)
    return "frozen" if layer.frozen else "-"


def _total(report: Report) -> list[str]:
    layers = [layer for layer in report.layers.values() if layer.measured]
    masks = [mask for layer in layers if (mask := layer.zero_gradient) is not None]
    neurons = sum(layer.neurons for layer in layers)
    dead = _share(np.concatenate([layer.dead for layer in layers])) if layers else "-"
    zero = _share(np.concatenate(masks)) if masks else "-"
    return [f"{neurons:,}", dead, zero, "", f"{report.samples:,}", ""]


def _share(mask: Mask) -> str:
    return f"{np.count_nonzero(mask):,} {np.mean(mask):5.1%}"


def _notes(report: Report) -> list[str]:
    notes = [
        f"NaN seen at {np.count_nonzero(layer.nan):,} neurons of {name}: neither active nor dead."
        for name, layer in report.layers.items()
        if np.any(layer.nan)
    ]
    notes += [
        f"{name}: {layer.died or 0:,} died and {layer.revived or 0:,} revived since the report before."
        for name, layer in report.layers.items()
        if layer.died or layer.revived
    ]
    if report.incomplete:
        notes.append(f"Incomplete: {report.incomplete}")
    return notes
