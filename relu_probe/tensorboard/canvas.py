"""A canvas for the pictures that TensorBoard shows: text in Pillow's own font, blocks of colours, and axes."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

BLACK: Colour = (0, 0, 0)
GREY: Colour = (90, 90, 90)
_WHITE: Colour = (255, 255, 255)


class Canvas:
    """A white picture that is drawn on. It has a background of its own: TensorBoard's page may be light or dark.

    Args:
        width: in pixels.
        height: in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width, height), _WHITE)
        self._draw = ImageDraw.Draw(self._image)

    def pixels(self) -> Pixels:
        """Returns the picture, `(height, width, 3)`."""
        return np.asarray(self._image)

    def text(self, x: float, y: float, text: str, size: int, *, colour: Colour = BLACK, anchor: str = "lm") -> None:
        """Writes a line of text.

        Args:
            x: the position, in pixels from the left.
            y: the position, in pixels from the top.
            text: the line.
            size: in pixels.
            colour: RGB.
            anchor: where the position is in the text: "l", "m" or "r" for left, middle or right, then "a", "m" or "d" for
                top, middle or bottom, as in Pillow.
        """
        self._draw.text((x, y), text, colour, font(size), anchor)

    def paste(self, pixels: Pixels, x: int, y: int) -> None:
        """Puts a picture `(height, width, 3)` here, its left upper corner at (x, y)."""
        self._image.paste(Image.fromarray(pixels), (x, y))

    def frame(self, box: tuple[float, float, float, float], colour: Colour = BLACK, width: int = 1) -> None:
        """Draws the outline of a rectangle (left, top, right, bottom); the last row and column of pixels belong to it."""
        self._draw.rectangle(box, outline=colour, width=width)

    def legend(self, x: float, y: float, parts: Sequence[str | Pixels], size: int) -> None:
        """Writes texts and patches of colour side by side, centred at the height `y`."""
        for part in parts:
            if isinstance(part, str):
                self.text(x, y, part, size, colour=GREY)
                x += text_width(part, size) + size / 2
            else:
                height, width, _ = part.shape
                self.paste(part, round(x), round(y - height / 2))
                left, top = round(x), round(y - height / 2)
                self.frame((left, top, left + width - 1, top + height - 1), GREY)
                x += width + size / 3


@cache
def font(size: int) -> Any:
    """Returns Pillow's own font; the one of fixed size where Pillow was built without FreeType."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """Returns the width of a line of text in pixels."""
    return float(font(size).getlength(text))


def fitted(text: str, width: float, size: int) -> str:
    """Returns the text with its middle left out if it is wider than `width` pixels.

    >>> fitted("block_16_expand_relu", 80, 12)
    'block_16...relu'
    """
    if text_width(text, size) <= width:
        return text
    for length in range(len(text) - 1, 1, -1):
        tail = length // 3
        if text_width(short := f"{text[: length - tail]}...{text[len(text) - tail :]}", size) <= width:
            return short
    return text[:1]


def ticks(count: int, space: float, extent: float) -> list[int]:
    """Returns the indices of the labels to show along an axis: all, or every second, fifth, tenth, ...

    Args:
        count: the number of labels.
        space: the length of the axis in pixels.
        extent: the length that a label takes, with a gap.

    >>> ticks(30, 200, 25)
    [0, 5, 10, 15, 20, 25]
    """
    steps = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    step = next(step for step in steps if step * space / count >= extent or step >= count)
    return list(range(0, count, step))
