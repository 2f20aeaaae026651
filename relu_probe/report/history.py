"""Which neurons died, when, and did they come back? A life is told from the reports of one fit, in their order."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from rich.text import Text

from relu_probe.report.layer_report import Counts, LayerReport, Mask
from relu_probe.report.report import Report
from relu_probe.report.table import plain_table, render


@dataclass(frozen=True, eq=False)
class LayerHistory:
    """The lives of one layer's neurons.

    Args:
        epochs: `(reports,)`, the epoch of each report (its place in the list where it has none).
        died: `(reports, neurons)` bool, active in the last report that saw it, dead in this one.
        revived: `(reports, neurons)` bool, dead in the last report that saw it, active in this one.
        born_dead: `(neurons,)` bool, dead in the first report.
        ever_active: `(neurons,)` bool, active in one report at least.
        dead_since: `(neurons,)`, the epoch whose report first found it dead and all later ones still did, -1 for not
            dead. Dead before the first step (a report with epoch -1) counts as 0; `born_dead` tells it apart.
        last_active: `(neurons,)`, of the newest report: the training step at which it was last active.
    """

    epochs: Counts
    died: Mask
    revived: Mask
    born_dead: Mask
    ever_active: Mask
    dead_since: Counts
    last_active: Counts | None


class History(dict[str, LayerHistory]):
    """Layer name -> `LayerHistory`, in the model's order. `str()` is the table of deaths, a row a layer and epoch."""

    def __str__(self) -> str:
        table = plain_table("When ReLU neurons died and revived", "layer", "epoch", "born dead", "died", "revived")
        for name, life in self.items():
            for i, (epoch, died, revived) in enumerate(zip(life.epochs, life.died, life.revived)):
                if not i or died.any() or revived.any():
                    born = f"{np.count_nonzero(life.born_dead):,}" if not i else ""
                    table.add_row(Text(name), str(epoch), born, *(f"{mask.sum():,}" for mask in (died, revived)))
        return render(table)


def history(reports: Iterable[Report], *, after: HistoryTracker | None = None) -> History:
    """The lives of the neurons that `reports` tell of, oldest first; `probe.reports` is such a list.

    A layer that a report did not measure, or a neuron at which it saw a NaN, is as it was in the report before. With
    `ReluProbe(keep=...)` ask `probe.history`, which goes on `after` the reports that were dropped.

    Raises:
        ValueError: the reports are of different models.
        TypeError: what was given is no list of reports.

    >>> awake, asleep = ({"hidden": LayerReport(samples=4, positions=4, active=a)} for a in ([0, 3, 2], [1, 0, 2]))
    >>> lives = history([Report(awake, epoch=0), Report(asleep, epoch=1)])["hidden"]
    >>> lives.born_dead, lives.died[1], lives.revived[1]
    (array([ True, False, False]), array([False,  True, False]), array([ True, False, False]))
    >>> lives.dead_since
    array([-1,  1, -1])
    """
    reports = check_reports(reports)
    epochs = np.array([i if report.epoch is None else report.epoch for i, report in enumerate(reports)], np.int64)
    names = dict.fromkeys(name for report in reports for name in report)
    begun = {} if after is None else deepcopy(after.layers)
    return History(
        {name: _layer([report.layers.get(name) for report in reports], epochs, begun.get(name)) for name in names}
    )


class Change(NamedTuple):
    """What a report changed: `(neurons,)` masks."""

    died: Mask
    revived: Mask


class NeuronStates:
    """Where the neurons of one layer stand, report by report."""

    def __init__(self, neurons: int) -> None:
        self.state = np.zeros(neurons, np.int8)  # 1 active, -1 dead, 0 not seen yet
        self.since = np.full(neurons, -1, np.int32)
        self.born_dead = np.zeros(neurons, bool)
        self.ever_active = np.zeros(neurons, bool)
        self._seen = False

    def follow(self, layer: LayerReport, epoch: int) -> Change:
        """Goes on to the next report of the layer.

        Raises:
            ValueError: it is of another number of neurons.
        """
        if layer.neurons != len(self.state):
            raise ValueError(
                f"one report has {len(self.state)} neurons in a layer and a later one {layer.neurons}; expected "
                "reports of one model, oldest first. Pass the reports of one fit: probe.reports."
            )
        active, dead = layer.active > 0, layer.dead
        change = Change(died=dead & (self.state > 0), revived=active & (self.state < 0))
        self.since[dead & (self.state >= 0)] = max(epoch, 0)
        self.since[active] = -1
        self.ever_active |= active
        self.state[dead], self.state[active] = -1, 1
        if not self._seen:
            self.born_dead, self._seen = dead, True
        return change


class HistoryTracker:
    """Follows the reports of one fit, and writes into each how many neurons died and revived since the one before."""

    def __init__(self) -> None:
        self.layers: dict[str, NeuronStates] = {}

    def follow(self, report: Report) -> Report:
        epoch = 0 if report.epoch is None else report.epoch
        return replace(report, layers={name: self._follow(name, layer, epoch) for name, layer in report.layers.items()})

    def _follow(self, name: str, layer: LayerReport, epoch: int) -> LayerReport:
        if not layer.measured:
            return layer
        died, revived = self.layers.setdefault(name, NeuronStates(layer.neurons)).follow(layer, epoch)
        return replace(layer, died=int(np.count_nonzero(died)), revived=int(np.count_nonzero(revived)))


def check_reports(reports: Any) -> list[Report]:
    """
    Raises:
        TypeError: it is no list of reports.
    """
    several = isinstance(reports, Iterable) and not isinstance(reports, (str, bytes, Report))
    found = list(reports) if several else [reports]
    wrong = next((one for one in found if not several or not isinstance(one, Report)), None)
    if wrong is not None:
        raise TypeError(
            f"found {repr(wrong).splitlines()[0]:.60} ({type(wrong).__name__}); expected a list of reports. Pass probe.reports."
        )
    return found


def _layer(layers: list[LayerReport | None], epochs: Counts, begun: NeuronStates | None) -> LayerHistory:
    neurons = max(layer.neurons for layer in layers if layer is not None)
    life, nothing = begun or NeuronStates(neurons), np.zeros(neurons, bool)
    changes, newest = [], None
    for layer, epoch in zip(layers, epochs.tolist()):
        seen = layer is not None and layer.measured
        changes.append(life.follow(layer, epoch) if seen and layer is not None else Change(nothing, nothing))
        newest = layer if seen else newest
    unsure = newest.nan if newest is not None else nothing  # neither active nor dead
    return LayerHistory(
        epochs=epochs,
        died=np.stack([change.died for change in changes]),
        revived=np.stack([change.revived for change in changes]),
        born_dead=life.born_dead,
        ever_active=life.ever_active,
        dead_since=np.where(unsure, -1, life.since).astype(np.int64),
        last_active=None if newest is None else newest.last_active,
    )
