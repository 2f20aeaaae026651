"""The deaths in one layer that its newest report still shows: how many neurons, and since when."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.layer_report import Counts, LayerReport, Mask
from relu_probe.utils.foreign_text import shown


class Dates(Protocol):
    """When the neurons of a layer died: what `LayerHistory` and `NeuronStates` have in common."""

    @property
    def ever_active(self) -> Mask:
        """`(neurons,)`, whether the neuron was active in any report."""

    @property
    def dead_since(self) -> NDArray[np.signedinteger[Any]]:
        """`(neurons,)`, the epoch in which the neuron died."""

    @property
    def found_dead(self) -> NDArray[np.signedinteger[Any]]:
        """`(neurons,)`, the epoch of the first report that found the neuron dead."""


class FirstDeath(NamedTuple):
    """When the first of a layer's dead neurons died. Neurons that were never active are left out.

    Args:
        epoch: the epoch.
        step: the training step at which the neuron was last active; None if that is not known.
    """

    epoch: int
    step: int | None

    def __str__(self) -> str:
        return f"epoch {self.epoch}" + ("" if self.step is None else f" (step {self.step:,})")

    @classmethod
    def of(cls, dead: Mask, dates: Dates, last_active: Counts | None) -> FirstDeath | None:
        """Returns the first death of the neurons that are `dead` now; None if there is none."""
        died = dead & dates.ever_active
        if not died.any():
            return None
        epoch = int(dates.dead_since[died].min())
        within = died & (dates.dead_since == epoch) & (dates.found_dead > epoch)  # the others died between two epochs
        step = None if last_active is None or not within.any() else int(last_active[within].min())
        return cls(epoch, step)


class Deaths(NamedTuple):
    """The dead neurons of a layer.

    Args:
        dead: the number of dead neurons.
        neurons: the number of neurons that can be judged.
        never_active: the number of dead neurons that were active in no report.
        first: when the first of the others died; None if there are no others.
        half: the epoch by whose end half of the others had died; None if that is the epoch of the first.
    """

    dead: int
    neurons: int
    never_active: int
    first: FirstDeath | None
    half: int | None = None

    @classmethod
    def of(cls, layer: LayerReport, dates: Dates) -> Deaths:
        """Returns the deaths that the newest report of a layer shows."""
        never_active = int(np.count_nonzero(layer.dead & ~dates.ever_active))
        first = FirstDeath.of(layer.dead, dates, layer.last_active)
        if first is None:
            return cls.undated(layer)._replace(never_active=never_active)
        epochs = dates.dead_since[layer.dead & dates.ever_active]
        middle = (len(epochs) - 1) // 2
        half = int(np.partition(epochs, middle)[middle])
        return cls.undated(layer)._replace(
            never_active=never_active, first=first, half=half if half > first.epoch else None
        )

    @classmethod
    def undated(cls, layer: LayerReport) -> Deaths:
        """Returns the deaths in a layer of which there is no other report."""
        return cls(*layer.shares["dead"], never_active=0, first=None)

    @property
    def since(self) -> str:
        """Since when neurons died: "since epoch 7, half by epoch 9", or "never seen active" if all were active in no report."""
        if self.first is None:
            return "never seen active"
        return f"since epoch {self.first.epoch}" + ("" if self.half is None else f", half by epoch {self.half}")

    def clauses(self, name: str, *, brief: bool = False) -> list[str]:
        """Returns what happened in the layer of this name: how many neurons are dead, and when they died.

        Args:
            name: the layer.
            brief: leave out the training step where two epochs are named.

        >>> "; ".join(Deaths(48, 48, 0, FirstDeath(7, 2310)).clauses("encoder_2"))
        'encoder_2: 48 of 48 dead; first deaths in epoch 7 (step 2,310)'
        >>> "; ".join(Deaths(9, 48, 6, FirstDeath(7, None)).clauses("encoder_2"))
        'encoder_2: 9 of 48 dead, 6 never seen active; next deaths in epoch 7'
        >>> Deaths(48, 48, 0, FirstDeath(1, 35), half=7).clauses("encoder_2", brief=True)
        ['encoder_2: 48 of 48 dead', 'first deaths in epoch 1, half by epoch 7']
        """
        number = "all" if self.first is None else f"{self.never_active:,}"
        start = f", {number} never seen active" if self.never_active else ""
        return [f"{shown(name)}: {self.dead:,} of {self.neurons:,} dead{start}", *self._dates(brief)]

    def _dates(self, brief: bool) -> list[str]:
        if self.first is None:
            return []
        first = self.first._replace(step=None) if brief and self.half is not None else self.first
        half = "" if self.half is None else f", half by epoch {self.half}"
        return [f"{'next' if self.never_active else 'first'} deaths in {first}{half}"]
