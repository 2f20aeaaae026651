"""The states of neurons, dead or active, followed from report to report."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from relu_probe.report.layer_report import LayerReport, Mask
from relu_probe.report.report import Report


class StateChanges(NamedTuple):
    """The neurons whose state changed in a report: `(neurons,)` masks."""

    died: Mask
    revived: Mask


class NeuronStates:
    """The states of one layer's neurons.

    Args:
        neurons: the number of neurons.
    """

    def __init__(self, neurons: int) -> None:
        self.state = np.zeros(neurons, np.int8)  # 1 active, -1 dead, 0 not seen yet
        self.dead_since = np.full(neurons, -1, np.int32)
        self.found_dead = np.full(neurons, -1, np.int32)
        self.born_dead = np.zeros(neurons, bool)
        self.ever_active = np.zeros(neurons, bool)
        self.skips_epochs = False  # whether an epoch was left out between two reports
        self._newest_epoch: int | None = None
        # The epoch that holds the step after the last activity, if that is known to be the epoch of the activity; else -1.
        self._last_epoch = np.full(neurons, -1, np.int32)

    def follow(self, layer: LayerReport, epoch: int, last_step: int | None) -> StateChanges:
        """Takes in the next report of the layer, and returns what it changed.

        Args:
            layer: the report.
            epoch: its epoch, -1 before the first step.
            last_step: the last training step that it counts, None if it does not count training steps.

        Raises:
            ValueError: the report has another number of neurons.
        """
        if layer.neurons != len(self.state):
            raise ValueError(
                f"one report has {len(self.state)} neurons in a layer and another {layer.neurons}; expected "
                "reports of one model, oldest first. Pass the reports of one fit: probe.reports."
            )
        self.skips_epochs |= self._newest_epoch is not None and epoch != self._newest_epoch + 1
        self._newest_epoch = epoch
        active, dead = layer.active > 0, layer.dead
        changes = StateChanges(died=dead & (self.state > 0), revived=active & (self.state < 0))
        newly_dead = dead & (self.state >= 0)
        self.found_dead[newly_dead] = max(epoch, 0)
        last = self._last_epoch[newly_dead]
        self.dead_since[newly_dead] = np.where(last < 0, max(epoch, 0), last)
        self.found_dead[active] = self.dead_since[active] = self._last_epoch[active] = -1
        if layer.last_active is not None and last_step is not None:
            self._last_epoch[active & (layer.last_active < last_step)] = epoch
        self.ever_active |= active
        self.state[dead], self.state[active] = -1, 1
        if epoch < 0:
            self.born_dead = dead
        return changes


class HistoryTracker:
    """Follows the reports of a fit, and adds to each how many neurons died and revived since the previous one."""

    def __init__(self) -> None:
        self.layers: dict[str, NeuronStates] = {}

    def follow(self, report: Report) -> Report:
        """Takes in the next report, and returns it with `died` and `revived` set in each measured layer."""
        return replace(
            report, layers={name: self._follow(name, layer, report) for name, layer in report.layers.items()}
        )

    def _follow(self, name: str, layer: LayerReport, report: Report) -> LayerReport:
        if not layer.measured:
            return layer
        epoch = 0 if report.epoch is None else report.epoch
        states = self.layers.setdefault(name, NeuronStates(layer.neurons))
        died, revived = states.follow(layer, epoch, report.last_step)
        return replace(layer, died=int(np.count_nonzero(died)), revived=int(np.count_nonzero(revived)))
