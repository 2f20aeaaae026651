"""The images `life/{layer}` of a run: the history of each layer; if there are many, of those with the largest shares of dead neurons."""

from collections import deque
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np

from relu_probe.report.layer_report import LayerReport
from relu_probe.report.life_image import LEGEND, draw_lives
from relu_probe.report.markup import plain_text
from relu_probe.report.report import Report
from relu_probe.tensorboard.life_picture import FOOT, framed_life
from relu_probe.tensorboard.summary_values import image_value
from relu_probe.utils.foreign_text import shown

MOST = 100  # layers of which images are drawn: 500 images take half a second, and nobody looks at them
_LATER = 4  # the report with which the images of more layers begin
_AT_ONCE = 32  # in one event: to write an event takes longer than to draw an image
_SMALL = 2**11  # neurons up to which layers are drawn together
_UNMEASURED = LayerReport(0, 0, np.zeros(0, np.int64))  # a layer that a report does not have


class LifeImages:
    """The images of one run.

    Args:
        keep: the number of newest reports that they show; None for all.
    """

    def __init__(self, keep: int | None) -> None:
        self._reports: deque[tuple[int, Report]] = deque(maxlen=keep)  # with the epochs
        self._shown: set[str] = set()  # once a layer has an image, it is drawn anew each time
        self._added = 0
        self.drawn = 0  # the number of reports that were added when the newest images were drawn

    def add(self, report: Report, epoch: int) -> None:
        """Adds a report."""
        self._reports.append((epoch, report))
        self._added += 1

    def draw(self, *, last: bool) -> Iterator[list[Any]]:
        """Yields the summary values of the images, in the order of the layers, some at a time.

        Args:
            last: whether nothing may follow. Else the images of more than `MOST` layers are not drawn before the fourth report.
        """
        if self._added < _LATER and len(self._reports[-1][1]) > MOST and not last:
            return
        self.drawn, names = self._added, self._names()
        for start in range(0, len(names), _AT_ONCE):
            yield list(self._images(names[start : start + _AT_ONCE]))

    def _names(self) -> list[str]:
        """Returns the layers to draw: all, or the `MOST` with the largest shares of dead neurons or NaN, and those drawn before."""
        layers = self._reports[-1][1].layers
        if len(layers) <= MOST:
            self._shown.update(layers)
            return list(layers)
        shares = {name: np.nanmax([layer.dead_fraction, layer.nan_fraction, 0.0]) for name, layer in layers.items()}
        self._shown.update(sorted(shares, key=shares.__getitem__, reverse=True)[:MOST])
        return [name for name in layers if name in self._shown]

    def _images(self, names: list[str]) -> Iterator[Any]:
        """Yields the images of some layers. Neighbours of equal size are drawn together, if they are small."""
        epochs = [epoch for epoch, _ in self._reports]
        histories = {name: [report.layers.get(name, _UNMEASURED) for _, report in self._reports] for name in names}
        measured = {name: layers for name, layers in histories.items() if any(layer.measured for layer in layers)}
        sizes = {name: max(layer.neurons for layer in layers) for name, layers in measured.items()}
        for _, neighbours in groupby(measured, key=lambda name: (sizes[name], name if sizes[name] > _SMALL else "")):
            group = list(neighbours)
            for name, life in zip(group, draw_lives([measured[name] for name in group])):
                about = f"Layer {plain_text(shown(name))}: {LEGEND}"
                yield image_value(f"life/{name}", framed_life(life, name, sizes[name], epochs), about, FOOT)
