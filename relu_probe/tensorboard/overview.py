"""The overview of a fit: the dead fraction of each layer in each report, kept for a picture."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.deaths import Deaths
from relu_probe.report.layer_report import Floats
from relu_probe.report.report import Report
from relu_probe.report.summary import death_clauses
from relu_probe.tensorboard.canvas import Pixels
from relu_probe.tensorboard.layer_groups import group_name, layer_groups
from relu_probe.tensorboard.overview_picture import OverviewRow, draw_overview

MOST_ROWS = 60


class _Column(NamedTuple):
    """What is kept of a report."""

    epoch: int
    names: tuple[str, ...]
    neurons: NDArray[np.int32]  # (2, layers): the dead neurons, and those that can be judged


class Overview:
    """The dead neurons of each layer in the reports of a fit: 8 bytes for each layer and report.

    Args:
        keep: the number of newest reports that are shown; None for all.
    """

    def __init__(self, keep: int | None = None) -> None:
        self._columns: deque[_Column] = deque(maxlen=keep)
        self._deaths: Mapping[str, Deaths] = {}
        self._title: list[str] = []

    def add(self, report: Report, epoch: int, deaths: Mapping[str, Deaths]) -> None:
        """Takes in the next report.

        Args:
            report: the report.
            epoch: its epoch.
            deaths: layer name -> the deaths that the report shows.
        """
        names, shares = tuple(report), [layer.shares["dead"] for layer in report.layers.values()]
        neurons = np.array(shares, np.int32).reshape(-1, 2).T
        if self._columns and self._columns[-1].names == names:
            names = self._columns[-1].names  # kept once
        self._columns.append(_Column(epoch, names, neurons))
        self._title, self._deaths = (
            death_clauses(report.layers, deaths, brief=True),
            deaths,
        )  # a line has room for no more

    def draw(self) -> Pixels | None:
        """Returns the picture, `(height, width, 3)`; None if the reports have no layers."""
        names = list(dict.fromkeys(name for column in self._columns for name in column.names))
        if not names:
            return None
        groups, epochs = layer_groups(names, MOST_ROWS), [column.epoch for column in self._columns]
        rows = [self._row(group, fractions) for group, fractions in zip(groups, self._fractions(groups))]
        return draw_overview(self._title, rows, epochs)

    def _fractions(self, groups: Sequence[Sequence[str]]) -> Floats:
        """Returns the dead fractions `(groups, reports)`, the neurons of a group pooled; nan if none can be judged."""
        row = {name: i for i, group in enumerate(groups) for name in group}
        totals = np.zeros((2, len(groups), len(self._columns)))
        for j, column in enumerate(self._columns):
            index = [row[name] for name in column.names]
            totals[:, :, j] = [np.bincount(index, counts, len(groups)) for counts in column.neurons]
        dead, judged = totals
        fractions: Floats = np.divide(dead, judged, out=np.full(dead.shape, np.nan), where=judged > 0)
        return fractions

    def _row(self, group: Sequence[str], fractions: Floats) -> OverviewRow:
        deaths = [self._deaths[name] for name in group if name in self._deaths]
        first = min((each.first.epoch for each in deaths if each.first is not None), default=None)
        dead, neurons = sum(each.dead for each in deaths), sum(each.neurons for each in deaths)
        return OverviewRow(group_name(group), fractions, dead, neurons, first)
