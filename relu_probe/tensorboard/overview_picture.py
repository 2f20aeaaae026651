"""The picture of an overview: a row for each layer, a column for each epoch, coloured by the dead fraction."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from relu_probe.report.layer_report import Floats
from relu_probe.report.life_image import DEAD, UNKNOWN, group_starts
from relu_probe.tensorboard.canvas import BLACK, GREY, Canvas, Pixels, fitted, text_width, ticks
from relu_probe.utils.foreign_text import shown

MOST_COLUMNS = 100
ALIVE = (214, 221, 228)
FEWEST = (247, 190, 247)  # the colour of the smallest dead fraction above 0
LEGEND = (
    "rows are layers, the first at the top; columns are epochs. Grey: no neuron is dead; pale to full magenta: the dead "
    "fraction, from above 0 to 1; white: not measured, or NaN. A black frame marks the epoch of a layer's first deaths: "
    "neurons that were active earlier in that epoch count as dead from the next one on, so that its cell can be grey. "
    f"Of more than 60 layers, neighbours share a row, their neurons pooled; of more than {MOST_COLUMNS} epochs, neighbours share a "
    "column, which shows the largest fraction."
)
# TensorBoard's card shows a picture of this size as it is, and shrinks a larger one. All sizes are in pixels.
_WIDTH, _HEIGHT = 324, 213
_TITLE, _FOOT = 36, 42  # heights of the title, and of the axis with the legend
_MIN_ROW, _MAX_ROW = 14, 30
_TEXT, _MARGIN, _GAP = 12, 4, 6


class OverviewRow(NamedTuple):
    """A layer, or several layers that share a row.

    Args:
        name: its name.
        fractions: `(reports,)`, the dead fractions; nan where nothing could be judged.
        dead: the number of dead neurons in the newest report.
        neurons: the number of neurons that could be judged there.
        first: the epoch of the first deaths; None if no neuron that was once active is dead.
    """

    name: str
    fractions: Floats
    dead: int
    neurons: int
    first: int | None


class _Grid(NamedTuple):
    """Where the cells are: the left edges of the columns and the last right one, the first row, the height of a row."""

    edges: Any
    top: int
    row: int


def draw_overview(title: Sequence[str], rows: Sequence[OverviewRow], epochs: Sequence[int]) -> Pixels:
    """Returns the picture, `(height, width, 3)`.

    Args:
        title: one or two lines above the rows.
        rows: the rows, the first at the top; at least one.
        epochs: the epoch of each report; at least one.
    """
    row = min(max(_MIN_ROW, (_HEIGHT - _TITLE - _FOOT) // len(rows)), _MAX_ROW)
    zoom = max(1.0, (len(rows) * row + _FOOT) / (_HEIGHT - _TITLE))  # the card shrinks the picture by as much
    canvas, top = Canvas(round(_WIDTH * zoom), round(_HEIGHT * zoom)), round(_TITLE * zoom)
    for i, line in enumerate(title):
        size = round((_TEXT + 1) * zoom)
        canvas.text(_MARGIN, (i + 0.5) * top / 2, fitted(line, canvas.width - 2 * _MARGIN, size), size)
    left, right = _write_rows(canvas, rows, top, row)
    starts = group_starts(len(epochs), MOST_COLUMNS)
    grid = _Grid(np.rint(np.linspace(left, right, len(starts) + 1)).astype(int), top, row)
    _draw_cells(canvas, grid, np.stack([np.fmax.reduceat(each.fractions, starts) for each in rows]))
    _frame_first_deaths(canvas, grid, rows, np.append(np.array(epochs)[starts[1:] - 1], epochs[-1]))
    _draw_axis(canvas, grid, [str(epochs[i]) for i in starts], top + len(rows) * row + _MARGIN)
    return canvas.pixels()


def dead_colours(fractions: Any) -> Pixels:
    """Returns the RGB colours `(..., 3)` of dead fractions `(...)`; that of NaN is white.

    The exponent makes equal steps of the fraction look more equal, above all to people who see no green.

    >>> dead_colours([0.0, 1.0])
    array([[214, 221, 228],
           [255,   0, 255]], dtype=uint8)
    """
    fractions = np.asarray(fractions, np.float64)[..., None]
    mixed = np.array(FEWEST) + np.nan_to_num(fractions) ** 1.5 * (np.array(DEAD) - FEWEST)
    colours = np.where(fractions == 0, ALIVE, np.rint(mixed))
    return np.where(np.isnan(fractions), UNKNOWN, colours).astype(np.uint8)


def _write_rows(canvas: Canvas, rows: Sequence[OverviewRow], top: int, height: int) -> tuple[int, int]:
    """Writes the names and numbers of the rows; returns the left and the right edge of what is free between them."""
    names = [fitted(shown(row.name), canvas.width / 3, _TEXT) for row in rows]
    counts = [f"{row.dead:,} of {row.neurons:,}" if row.neurons else "-" for row in rows]
    left, right = _MARGIN + _widest(names) + _GAP, canvas.width - _MARGIN - _widest(counts) - _GAP
    for i, (name, count, row) in enumerate(zip(names, counts, rows)):
        middle, colour = top + (i + 0.5) * height, BLACK if row.dead else GREY
        canvas.text(left - _GAP, middle, name, _TEXT, colour=colour, anchor="rm")
        canvas.text(canvas.width - _MARGIN, middle, count, _TEXT, colour=colour, anchor="rm")
    return left, right


def _widest(texts: Sequence[str]) -> int:
    return round(max(text_width(text, _TEXT) for text in texts))


def _draw_cells(canvas: Canvas, grid: _Grid, fractions: Floats) -> None:
    cells = dead_colours(fractions).repeat(np.diff(grid.edges), axis=1).repeat(grid.row, axis=0)
    cells[grid.row - 1 :: grid.row] = UNKNOWN  # lines between the rows, and between wide columns
    if np.diff(grid.edges).min() >= _GAP:
        cells[:, grid.edges[1:] - grid.edges[0] - 1] = UNKNOWN
    canvas.paste(cells, grid.edges[0], grid.top)


def _frame_first_deaths(canvas: Canvas, grid: _Grid, rows: Sequence[OverviewRow], last_epochs: Any) -> None:
    """Frames the cells of the first deaths; `last_epochs` has the last epoch of each column.

    The line is as many pixels wide as the card leaves out: it must not disappear.
    """
    line = -(-canvas.height // _HEIGHT)
    for i, row in enumerate(rows):
        if row.first is not None:
            column = min(int(np.searchsorted(last_epochs, row.first)), len(last_epochs) - 1)
            left, right, top = grid.edges[column] - 1, grid.edges[column + 1] - 1, grid.top + i * grid.row - 1
            canvas.frame((left, top, max(right, left + 2), top + grid.row), width=line)


def _draw_axis(canvas: Canvas, grid: _Grid, epochs: Sequence[str], y: int) -> None:
    """Writes the epochs below the columns, and the legend below them."""
    edges = grid.edges
    canvas.text(edges[0] - _GAP, y, "epoch", _TEXT, colour=GREY, anchor="ra")
    canvas.text(canvas.width - _MARGIN, y, "dead", _TEXT, colour=GREY, anchor="ra")
    for i in ticks(len(epochs), edges[-1] - edges[0], _widest(epochs) + _TEXT):
        canvas.text((edges[i] + edges[i + 1]) / 2, y, epochs[i], _TEXT, colour=GREY, anchor="ma")
    none, some = dead_colours(np.zeros((10, 10))), dead_colours(np.linspace(1e-9, 1, 50)[None]).repeat(10, axis=0)
    frame = np.full((10, 10, 3), UNKNOWN, np.uint8)
    canvas.legend(_MARGIN, y + 28, ["dead:", none, "none", some, "few to all", frame, "first deaths"], _TEXT)
