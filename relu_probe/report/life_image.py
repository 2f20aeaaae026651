"""Images of a layer's history: neurons across, reports down, the colour shows the activation rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.layer_report import Counts, Floats, LayerReport

Image = NDArray[np.uint8]

WIDTH = 512  # the largest width in pixels, and so the largest number of cells across
ROWS = 128  # the largest number of cells down
_HEIGHT = 256  # the height in pixels that the cells are sized for
_AT_ONCE = 2**16  # neurons that are sorted into cells at once
_MIN_CELL_HEIGHT, _MAX_CELL_HEIGHT = 2, 32  # pixels; two, so that dead and other neurons of one cell both show

# Cividis, perceptually uniform with and without a colour vision deficiency (Nunez et al. 2018, arXiv:1712.01662).
_RED = [0, 0, 30, 53, 71, 87, 102, 117, 132, 148, 165, 183, 200, 219, 238, 254]
_GREEN = [34, 46, 58, 69, 81, 93, 105, 117, 130, 142, 156, 169, 184, 199, 214, 232]
_BLUE = [78, 108, 111, 108, 108, 109, 112, 117, 121, 119, 116, 110, 102, 90, 73, 56]
# Far from every colour of the map, with every kind of colour vision (tests/report/test_life_image.py).
DEAD = (255, 0, 255)
UNKNOWN = (255, 255, 255)
LEGEND = (
    "columns are neurons, the first to die on the left; rows are reports, the newest at the bottom; magenta is dead; dark "
    "blue to yellow is the activation rate, from 0 to 1; white is not measured, or NaN. Of more than 512 neurons, neighbours "
    "share a column."
)


def colours(rates: Any) -> Image:
    """Returns the RGB colours `(..., 3)` of activation rates `(...)` in [0, 1]; the colour of NaN is `UNKNOWN`.

    >>> colours([0.0, 1.0, np.nan])
    array([[  0,  34,  78],
           [254, 232,  56],
           [255, 255, 255]], dtype=uint8)
    """
    rates, knots = np.asarray(rates, np.float64), np.linspace(0, 1, len(_RED))
    known = np.nan_to_num(rates)
    rgb = np.stack([np.interp(known, knots, channel) for channel in (_RED, _GREEN, _BLUE)], axis=-1)
    return np.where(np.isnan(rates)[..., None], UNKNOWN, np.rint(rgb)).astype(np.uint8)


def draw_life(layers: Sequence[LayerReport]) -> Image:
    """Returns an RGB image `(height, width, 3)` of the reports of one layer, oldest first.

    A cell is one neuron in one report. If there are more than 512 neurons, or 128 reports, neighbours share a cell. The cell
    has the colour of the mean rate of the neurons that are not dead. From its bottom up, it has the colour `DEAD` in
    proportion to the share of dead neurons: at least one row of pixels if any is dead, all but one at most if any is not.

    Raises:
        ValueError: no report measured the layer, or the reports are of layers of different sizes.

    >>> layer = LayerReport(samples=10, positions=10, active=[10, 0])
    >>> image = draw_life([layer])
    >>> image.shape, tuple(int(v) for v in image[0, 0]) == DEAD
    ((32, 512, 3), True)
    """
    (image,) = draw_lives([layers])
    return image


def draw_lives(histories: Sequence[Sequence[LayerReport]]) -> list[Image]:
    """Returns the images of several layers of equal size, drawn together: one by one takes twice as long for small layers.

    Args:
        histories: for each layer, its reports, oldest first; of each layer the same number.

    Raises:
        ValueError: no report measured a layer, or the reports are of layers of different sizes.
    """
    sizes = sorted({layer.neurons for layers in histories for layer in layers if layer.measured})
    if len(sizes) != 1 or not all(any(layer.measured for layer in layers) for layers in histories):
        raise ValueError(
            f"found reports that measured layers of {sizes} neurons; expected one layer, measured at least once. "
            "Pass the reports of one fit: [report[name] for report in probe.reports]."
        )
    reports = list(zip(*histories))
    return list(_paint(*_cells(reports, _order(reports, sizes[0]))))


def _order(reports: Sequence[Sequence[LayerReport]], neurons: int) -> Counts:
    """Returns `(layers, neurons)`, the neurons ordered by their death: born dead, died first, ..., most active.

    In this order the dead neurons of the image have one common edge.
    """
    shape = len(reports[0]), neurons
    small = np.min_scalar_type(-len(reports) - 1)  # holds the number of reports, with either sign
    last_alive, times_dead, rates = np.full(shape, -1, small), np.zeros(shape, small), np.zeros(shape)
    for i, layers in enumerate(reports):
        states = _states(layers, neurons)
        last_alive[states >= 0] = i
        times_dead += states < 0
        rates += np.fmax(states, 0, out=states)
    del states
    order: Counts = np.lexsort((rates, np.negative(times_dead, out=times_dead), last_alive))
    return order


def _states(layers: Sequence[LayerReport], neurons: int) -> Floats:
    """Returns `(layers, neurons)`: the activation rate, -1 if the neuron is dead, NaN if that is not known.

    The reports are taken in one by one: the rates of a million neurons in all reports would fill hundreds of megabytes.
    """
    states = np.full((len(layers), neurons), np.nan)
    for row, layer in zip(states, layers):
        if layer.measured:
            np.divide(layer.active, layer.positions, out=row)
            row[layer.active == 0] = -1
            row[layer.nan] = np.nan
    return states


class _Cells(NamedTuple):
    """The cells of images, each `(layers, rows, columns)`."""

    dead: Floats  # the number of dead neurons, as a share of all neurons of the cell
    rate: Floats  # the mean activation rate of the active neurons; NaN if there are none


def _cells(reports: Sequence[Sequence[LayerReport]], order: Counts) -> _Cells:
    neurons = order.shape[1]
    columns, rows = group_starts(neurons, WIDTH), group_starts(len(reports), ROWS)
    sums = np.empty((3, len(order), len(reports), len(columns)))
    for i, layers in enumerate(reports):
        sums[:, :, i] = _sums(_states(layers, neurons), order, columns)
    dead, active, rates = np.add.reduceat(sums, rows, axis=2)
    sizes = np.outer(np.diff(rows, append=len(reports)), np.diff(columns, append=neurons))
    return _Cells(dead / sizes, np.divide(rates, active, out=np.full(active.shape, np.nan), where=active > 0))


def _sums(states: Floats, order: Counts, columns: Counts) -> Floats:
    """Returns `(3, layers, columns)`: the dead neurons, the active ones, and the sum of their rates.

    Of a wide layer some columns at a time: each vector of a million neurons takes megabytes.
    """
    neurons = order.shape[1]
    at_once = max(1, _AT_ONCE * len(columns) // neurons)
    parts = []
    for first, end in zip(range(0, len(columns), at_once), [*columns[at_once::at_once], neurons]):
        starts = columns[first : first + at_once]
        part = np.take_along_axis(states, order[:, starts[0] : end], axis=1)
        values = part < 0, part >= 0, np.fmax(part, 0, out=part)
        parts.append([np.add.reduceat(each, starts - starts[0], axis=1, dtype=np.float64) for each in values])
    return np.concatenate(parts, axis=-1)


def _paint(share_dead: Floats, rate: Floats) -> Image:
    """Returns the images `(layers, height, width, 3)`."""
    background = colours(rate)
    layers, rows, columns = share_dead.shape
    height = int(np.clip(_HEIGHT // rows, _MIN_CELL_HEIGHT, _MAX_CELL_HEIGHT))
    filled = np.ceil(share_dead * height)
    filled = np.where(share_dead < 1, np.minimum(filled, height - 1), filled)
    is_dead = np.arange(height)[:, None] >= height - filled[:, :, None]
    cells = np.repeat(background[:, :, None], height, axis=2)
    cells[is_dead] = DEAD
    return cells.reshape(layers, rows * height, columns, 3).repeat(max(1, WIDTH // columns), axis=2)


def group_starts(length: int, most: int) -> Counts:
    """Returns where groups of neighbours begin, at most `most` of them, of sizes as equal as possible."""
    groups = min(length, most)
    starts: Counts = np.arange(groups) * length // groups
    return starts
