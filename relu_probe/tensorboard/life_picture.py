"""The picture of a layer's history: its life image with an axis of epochs and a legend."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from relu_probe.report.life_image import DEAD, ROWS, UNKNOWN, WIDTH, colours, group_starts
from relu_probe.tensorboard.canvas import GREY, Canvas, Pixels, fitted, ticks
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.wording import number

# In pixels. TensorBoard's card shrinks the picture by two thirds: the text is as large as that.
_TEXT, _MARGIN = 19, 6
LEFT, TOP, FOOT = 84, 30, 62


def framed_life(life: Pixels, name: str, neurons: int, epochs: Sequence[int]) -> Pixels:
    """Returns the picture, `(height, width, 3)`; the life image begins at column `LEFT` of row `TOP`.

    Args:
        life: the life image.
        name: the layer's name.
        neurons: the number of its neurons.
        epochs: the epoch of each report, oldest first.
    """
    rows = group_starts(len(epochs), ROWS)
    picture = _empty_frame(tuple(epochs[i] for i in rows), len(life)).copy()
    canvas = Canvas(picture.shape[1], TOP)
    title = f"{shown(name)}: {number(neurons, 'neuron')}"
    canvas.text(_MARGIN, TOP / 2, fitted(title, canvas.width - 2 * _MARGIN, _TEXT), _TEXT)
    np.minimum(picture[:TOP], canvas.pixels(), out=picture[:TOP])  # a label of the axis may reach up here
    picture[TOP : TOP + len(life), LEFT : LEFT + life.shape[1]] = life
    return picture


@lru_cache(maxsize=1)  # all layers share it: text takes longer to draw than the picture takes to copy
def _empty_frame(epochs: Sequence[int], height: int) -> Pixels:
    """Returns the picture without title and life image, which is `height` pixels high; `epochs` are those of its rows."""
    canvas = Canvas(LEFT + WIDTH + _MARGIN, TOP + height + FOOT)
    _write_epochs(canvas, epochs, height)
    rates = colours(np.linspace(0, 1, 90)[None]).repeat(16, axis=0)
    dead, unknown = (np.full((16, 24, 3), colour, np.uint8) for colour in (DEAD, UNKNOWN))
    parts: list[str | Pixels] = [dead, "dead", "activation rate: 0", rates, "1", unknown, "white: unknown"]
    canvas.legend(_MARGIN, canvas.height - FOOT / 4, parts, _TEXT)
    return canvas.pixels()


def _write_epochs(canvas: Canvas, epochs: Sequence[int], height: int) -> None:
    """Writes the epochs beside the rows of the life image, and below it what its axes show."""
    row = height / len(epochs)
    for i in ticks(len(epochs), height, 1.3 * _TEXT):
        canvas.text(LEFT - _MARGIN, TOP + (i + 0.5) * row, str(epochs[i]), _TEXT, colour=GREY, anchor="rm")
    below = TOP + height + FOOT / 4
    canvas.text(LEFT - _MARGIN, below, "epoch", _TEXT, colour=GREY, anchor="rm")
    canvas.text(LEFT + WIDTH / 2, below, "neurons, the first to die on the left", _TEXT, colour=GREY, anchor="mm")
