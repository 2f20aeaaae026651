"""The history of neurons: which died or revived in which report of a fit."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import numpy as np

from relu_probe.report.history_table import change_cells, history_cells
from relu_probe.report.layer_history import LayerHistory, changes
from relu_probe.report.layer_report import Counts
from relu_probe.report.markup import html_table
from relu_probe.report.neuron_states import HistoryTracker, NeuronStates, StateChanges
from relu_probe.report.report import Report
from relu_probe.report.table import text_report
from relu_probe.report.text_table import terminal_width
from relu_probe.utils.wording import number


class History(dict[str, LayerHistory]):
    """Layer name -> `LayerHistory`, in the model's order. `str()` is a table with a row for each layer."""

    def __repr__(self) -> str:
        return f"<History of {number(len(self), 'layer')}: {changes(self.values())}>"

    def __str__(self) -> str:
        return text_report(history_cells(self), terminal_width())

    def _repr_html_(self) -> str:
        return html_table(history_cells(self))

    def table(self, *, width: int | None = None) -> str:
        """Returns a table with a row for each layer and each report in which neurons died or revived.

        Args:
            width: the number of characters in a line; None for the terminal's, or, if standard output is a pipe, a file
                or a notebook, as many as are needed.
        """
        return text_report(change_cells(self), terminal_width() if width is None else width)


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

    >>> from relu_probe.report.layer_report import LayerReport
    >>> awake, asleep = ({"hidden": LayerReport(samples=4, positions=4, active=a)} for a in ([0, 3, 2], [1, 0, 2]))
    >>> hidden = history([Report(awake, epoch=0), Report(asleep, epoch=1)])["hidden"]
    >>> hidden.died[1], hidden.revived[1]
    (array([False,  True, False]), array([ True, False, False]))
    >>> hidden.dead_since
    array([-1,  1, -1])
    """
    reports = list_of_reports(reports)
    epochs = np.array([i if report.epoch is None else report.epoch for i, report in enumerate(reports)], np.int64)
    names = dict.fromkeys(name for report in reports for name in report)
    states = {} if after is None else deepcopy(after.layers)
    return History({name: _layer_history(reports, name, epochs, states.get(name)) for name in names})


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


def _layer_history(reports: list[Report], name: str, epochs: Counts, states: NeuronStates | None) -> LayerHistory:
    layers = [report.layers.get(name) for report in reports]
    neurons = max(layer.neurons for layer in layers if layer is not None)
    none = np.zeros(neurons, bool)
    states = states or NeuronStates(neurons)
    changes, newest, last_step = [StateChanges(none, none)] * len(layers), None, None
    for i, layer in enumerate(layers):
        if layer is not None and layer.measured:
            changes[i], newest = states.follow(layer, int(epochs[i]), reports[i].last_step), layer
            last_step = reports[i].last_step
    has_nan = newest.nan if newest is not None else none  # neither active nor dead
    return LayerHistory(
        epochs=epochs,
        measured=np.array([layer is not None and layer.measured for layer in layers]),
        died=np.stack([change.died for change in changes]),
        revived=np.stack([change.revived for change in changes]),
        dead_neurons=np.array([0 if layer is None else np.count_nonzero(layer.dead) for layer in layers]),
        dead_fraction=np.array([np.nan if layer is None else layer.dead_fraction for layer in layers]),
        born_dead=states.born_dead,
        never_active=(states.state < 0) & ~has_nan & ~states.ever_active & ~states.born_dead,
        ever_active=states.ever_active,
        dead_since=np.where(has_nan, -1, states.dead_since).astype(np.int64),
        found_dead=np.where(has_nan, -1, states.found_dead).astype(np.int64),
        last_active=None if newest is None else newest.last_active,
        last_step=last_step,
        skips_epochs=states.skips_epochs,
    )
