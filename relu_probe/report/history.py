"""The history of neurons: which died or revived in which report of a fit."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from relu_probe.report.layer_report import Counts, LayerReport, Mask
from relu_probe.report.report import Report
from relu_probe.report.text_table import terminal_width, text_table
from relu_probe.utils.foreign_text import shown


@dataclass(frozen=True, eq=False)
class LayerHistory:
    """The history of one layer's neurons.

    Args:
        epochs: `(reports,)`, the epoch of each report, or its index if it has none.
        died: `(reports, neurons)` bool, dead in this report, active in the last report before it that measured the neuron.
        revived: `(reports, neurons)` bool, active in this report, dead in the last report before it that measured the neuron.
        born_dead: `(neurons,)` bool, dead in the first report.
        ever_active: `(neurons,)` bool, active in at least one report.
        dead_since: `(neurons,)`, the epoch of the report since which the neuron has been dead; -1 if it is not dead. A report
            from before the first step (epoch -1) counts as epoch 0; `born_dead` shows the difference.
        last_active: `(neurons,)`, the training step at which the neuron was last active, from the newest report.
    """

    epochs: Counts
    died: Mask
    revived: Mask
    born_dead: Mask
    ever_active: Mask
    dead_since: Counts
    last_active: Counts | None


class History(dict[str, LayerHistory]):
    """Layer name -> `LayerHistory`, in the model's order. `str()` is a table with a row per layer and epoch of a change."""

    def __str__(self) -> str:
        rows: list[list[str]] = []
        for name, layer in self.items():
            for i, (epoch, died, revived) in enumerate(zip(layer.epochs, layer.died, layer.revived)):
                if not i or died.any() or revived.any():
                    born = f"{np.count_nonzero(layer.born_dead):,}" if not i else ""
                    rows.append([shown(name), str(epoch), born, *(f"{mask.sum():,}" for mask in (died, revived))])
        table = text_table(["layer", "epoch", "born dead", "died", "revived"], rows, terminal_width())
        return f"When ReLU neurons died and revived\n{table}"


def history(reports: Iterable[Report], *, after: HistoryTracker | None = None) -> History:
    """Returns the history of the neurons in `reports`.

    A layer that a report did not measure, or a neuron at which it saw a NaN, is taken to be as in the report before.

    Args:
        reports: the reports of one fit, oldest first, such as `probe.reports`. With `ReluProbe(keep=...)` use
            `probe.history` instead, which also knows the reports that were dropped.
        after: what followed the reports before these.

    Raises:
        ValueError: the reports are of different models.
        TypeError: `reports` is no list of reports.

    >>> awake, asleep = ({"hidden": LayerReport(samples=4, positions=4, active=a)} for a in ([0, 3, 2], [1, 0, 2]))
    >>> hidden = history([Report(awake, epoch=0), Report(asleep, epoch=1)])["hidden"]
    >>> hidden.born_dead, hidden.died[1], hidden.revived[1]
    (array([ True, False, False]), array([False,  True, False]), array([ True, False, False]))
    >>> hidden.dead_since
    array([-1,  1, -1])
    """
    reports = list_of_reports(reports)
    epochs = np.array([i if report.epoch is None else report.epoch for i, report in enumerate(reports)], np.int64)
    names = dict.fromkeys(name for report in reports for name in report)
    states = {} if after is None else deepcopy(after.layers)
    return History(
        {
            name: _layer_history([report.layers.get(name) for report in reports], epochs, states.get(name))
            for name in names
        }
    )


class StateChanges(NamedTuple):
    """The neurons whose state changed in a report: `(neurons,)` masks."""

    died: Mask
    revived: Mask


class NeuronStates:
    """The states of one layer's neurons, followed from report to report.

    Args:
        neurons: the number of neurons.
    """

    def __init__(self, neurons: int) -> None:
        self.state = np.zeros(neurons, np.int8)  # 1 active, -1 dead, 0 not seen yet
        self.since = np.full(neurons, -1, np.int32)
        self.born_dead = np.zeros(neurons, bool)
        self.ever_active = np.zeros(neurons, bool)
        self._has_report = False

    def follow(self, layer: LayerReport, epoch: int) -> StateChanges:
        """Takes in the next report of the layer, and returns what it changed.

        Raises:
            ValueError: the report has another number of neurons.
        """
        if layer.neurons != len(self.state):
            raise ValueError(
                f"one report has {len(self.state)} neurons in a layer and a later one {layer.neurons}; expected "
                "reports of one model, oldest first. Pass the reports of one fit: probe.reports."
            )
        active, dead = layer.active > 0, layer.dead
        changes = StateChanges(died=dead & (self.state > 0), revived=active & (self.state < 0))
        self.since[dead & (self.state >= 0)] = max(epoch, 0)
        self.since[active] = -1
        self.ever_active |= active
        self.state[dead], self.state[active] = -1, 1
        if not self._has_report:
            self.born_dead, self._has_report = dead, True
        return changes


class HistoryTracker:
    """Follows the reports of a fit, and adds to each how many neurons died and revived since the previous one."""

    def __init__(self) -> None:
        self.layers: dict[str, NeuronStates] = {}

    def follow(self, report: Report) -> Report:
        """Takes in the next report, and returns it with `died` and `revived` set in each measured layer."""
        epoch = 0 if report.epoch is None else report.epoch
        return replace(report, layers={name: self._follow(name, layer, epoch) for name, layer in report.layers.items()})

    def _follow(self, name: str, layer: LayerReport, epoch: int) -> LayerReport:
        if not layer.measured:
            return layer
        died, revived = self.layers.setdefault(name, NeuronStates(layer.neurons)).follow(layer, epoch)
        return replace(layer, died=int(np.count_nonzero(died)), revived=int(np.count_nonzero(revived)))


def list_of_reports(reports: Any) -> list[Report]:
    """Returns the reports as a list.

    Raises:
        TypeError: `reports` is no iterable of reports.
    """
    several = isinstance(reports, Iterable) and not isinstance(reports, (str, bytes, Report))
    found = list(reports) if several else [reports]
    wrong = next((one for one in found if not several or not isinstance(one, Report)), None)
    if wrong is not None:
        raise TypeError(
            f"found {repr(wrong).splitlines()[0]:.60} ({type(wrong).__name__}); expected a list of reports. Pass probe.reports."
        )
    return found


def _layer_history(layers: list[LayerReport | None], epochs: Counts, states: NeuronStates | None) -> LayerHistory:
    neurons = max(layer.neurons for layer in layers if layer is not None)
    none = np.zeros(neurons, bool)
    states = states or NeuronStates(neurons)
    changes, newest = [StateChanges(none, none)] * len(layers), None
    for i, layer in enumerate(layers):
        if layer is not None and layer.measured:
            changes[i], newest = states.follow(layer, int(epochs[i])), layer
    has_nan = newest.nan if newest is not None else none  # neither active nor dead
    return LayerHistory(
        epochs=epochs,
        died=np.stack([change.died for change in changes]),
        revived=np.stack([change.revived for change in changes]),
        born_dead=states.born_dead,
        ever_active=states.ever_active,
        dead_since=np.where(has_nan, -1, states.since).astype(np.int64),
        last_active=None if newest is None else newest.last_active,
    )
