"""What was the life of a layer? A picture: neurons across, epochs down, colour = activation rate. NumPy only."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.layer_report import Counts, Floats, LayerReport, Mask

Picture = NDArray[np.uint8]

WIDTH = 512  # pixels at most, and so cells across
ROWS = 128  # cells down, at most
_HEIGHT = 256  # pixels aimed at
_THINNEST, _THICKEST = 2, 32  # pixels of a cell down; two, so that dead and living neurons of one cell both show

# Cividis, perceptually uniform with and without a colour vision deficiency (Nunez et al. 2018, arXiv:1712.01662).
_RED = [0, 0, 30, 53, 71, 87, 102, 117, 132, 148, 165, 183, 200, 219, 238, 254]
_GREEN = [34, 46, 58, 69, 81, 93, 105, 117, 130, 142, 156, 169, 184, 199, 214, 232]
_BLUE = [78, 108, 111, 108, 108, 109, 112, 117, 121, 119, 116, 110, 102, 90, 73, 56]
DEAD = (255, 0, 255)  # far from every colour of the map, in the eyes of all (tests/test_pictures.py)
UNKNOWN = (255, 255, 255)
LEGEND = (
    "neurons across, those that died first on the left; reports down, the newest at the bottom; magenta is dead; dark "
    "blue to yellow is the activation rate, 0 to 1; white is not measured, or NaN. Neurons beyond 512 share columns."
)


def colours(rates: Any) -> Picture:
    """RGB `(..., 3)` of activation rates `(...)` in [0, 1]; NaN is `UNKNOWN`.

    >>> colours([0.0, 1.0, np.nan])
    array([[  0,  34,  78],
           [254, 232,  56],
           [255, 255, 255]], dtype=uint8)
    """
    rates, knots = np.asarray(rates, np.float64), np.linspace(0, 1, len(_RED))
    known = np.nan_to_num(rates)
    rgb = np.stack([np.interp(known, knots, channel) for channel in (_RED, _GREEN, _BLUE)], axis=-1)
    return np.where(np.isnan(rates)[..., None], UNKNOWN, np.rint(rgb)).astype(np.uint8)


class LifeImage(NamedTuple):
    """`(reports, neurons)`: the activation rates, NaN where unknown, and who was dead."""

    rates: Floats
    dead: Mask

    @classmethod
    def of(cls, layers: Sequence[LayerReport]) -> "LifeImage":
        """Of the reports of one layer, oldest first; one that did not measure it is a row of unknown rates."""
        neurons = max(layer.neurons for layer in layers)
        blank = LayerReport(samples=0, positions=0, active=np.zeros(neurons, np.int64))
        layers = [layer if layer.measured else blank for layer in layers]
        rates = [np.where(layer.nan, np.nan, layer.activation_rate) for layer in layers]
        return cls(np.stack(rates), np.stack([layer.dead for layer in layers]))

    def sorted(self) -> "LifeImage":
        """Neurons in the order of their death, so that it forms an edge: born dead, died first, ..., most active."""
        alive = ~self.dead & ~np.isnan(self.rates)
        last_alive = np.where(alive, np.arange(len(alive))[:, None], -1).max(axis=0)
        order = np.lexsort((np.nansum(self.rates, axis=0), -self.dead.sum(axis=0), last_alive))
        return LifeImage(self.rates[:, order], self.dead[:, order])


def life(layers: Sequence[LayerReport]) -> Picture:
    """The life of one layer, told by its reports, oldest first: RGB `(height, width, 3)`.

    A cell is one neuron in one report; of more than 512 neurons, or 128 reports, neighbours share a cell. It has the
    colour of the mean rate of those not dead, and from the bottom up as much of `DEAD` as the share of the dead: at
    least one row of pixels if any is dead, at most all but one if any is not.

    Raises:
        ValueError: no report measured the layer, or they are of layers of different sizes.

    >>> layer = LayerReport(samples=10, positions=10, active=[10, 0])
    >>> picture = life([layer])
    >>> picture.shape, tuple(int(v) for v in picture[0, 0]) == DEAD
    ((32, 512, 3), True)
    """
    sizes = sorted({layer.neurons for layer in layers if layer.measured})
    if len(sizes) != 1:
        raise ValueError(
            f"found reports that measured layers of {sizes} neurons; expected one layer, measured at least once. "
            "Pass the reports of one fit: [report[name] for report in probe.reports]."
        )
    return _paint(LifeImage.of(layers).sorted())


def _paint(told: LifeImage) -> Picture:
    dead, known = _pool(told.dead), _pool(~told.dead & ~np.isnan(told.rates))
    total = _pool(np.ones_like(told.dead))
    sums = _pool(np.where(told.dead, 0, np.nan_to_num(told.rates)))
    ground = colours(np.divide(sums, known, out=np.full(known.shape, np.nan), where=known > 0))
    rows, columns = dead.shape
    height = int(np.clip(_HEIGHT // rows, _THINNEST, _THICKEST))
    filled = np.ceil(dead / total * height)
    filled = np.where(dead < total, np.minimum(filled, height - 1), filled)
    is_dead = np.arange(height)[None, :, None] >= height - filled[:, None, :]
    cells = np.repeat(ground[:, None], height, axis=1)
    cells[is_dead] = DEAD
    return cells.reshape(rows * height, columns, 3).repeat(max(1, WIDTH // columns), axis=1)


def _pool(values: NDArray[Any]) -> Floats:
    """LayerIncrements over groups of neighbours of as equal a size as can be, at most `(ROWS, WIDTH)` of them."""
    for axis, most in enumerate((ROWS, WIDTH)):
        values = np.add.reduceat(values.astype(np.float64), _starts(values.shape[axis], most), axis=axis)
    return values


def _starts(length: int, most: int) -> Counts:
    groups = min(length, most)
    starts: Counts = np.arange(groups) * length // groups
    return starts
