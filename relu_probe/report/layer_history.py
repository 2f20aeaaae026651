"""The history of one layer: when each neuron died and revived."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from relu_probe.report.layer_report import Counts, Floats, Mask
from relu_probe.utils.wording import number


@dataclass(frozen=True, eq=False, repr=False)
class LayerHistory:
    """The history of one layer's neurons.

    Args:
        epochs: `(reports,)`, the epoch of each report, or its index if it has none.
        measured: `(reports,)` bool, whether the report measured the layer.
        died: `(reports, neurons)` bool, dead in this report, active in the last report before it that measured the neuron.
        revived: `(reports, neurons)` bool, active in this report, dead in the last report before it that measured the neuron.
        dead_neurons: `(reports,)`, the number of dead neurons in each report.
        dead_fraction: `(reports,)`, the layer's `dead_fraction` in each report; nan if the report did not measure it.
        born_dead: `(neurons,)` bool, dead before the first step, as `ReluProbe(at_start=True)` measured it.
        never_active: `(neurons,)` bool, dead, active in no report, and not known to be born dead: the neuron may have died in
            the first step.
        ever_active: `(neurons,)` bool, active in at least one report.
        dead_since: `(neurons,)`, the epoch in which the neuron died, -1 if it is not dead. It is the epoch of the step after
            `last_active` if the reports count training steps, else the same as `found_dead`.
        found_dead: `(neurons,)`, the epoch of the first report in which the neuron was never active, -1 if it is not dead. A
            report from before the first step (epoch -1) counts as epoch 0, here and in `dead_since`.
        last_active: `(neurons,)`, the training step at which the neuron was last active, from the newest report.
        last_step: the newest training step that this report counts; None if it counts no training steps.
        skips_epochs: whether there were epochs between the reports, in which the layer was not measured.
    """

    epochs: Counts
    measured: Mask
    died: Mask
    revived: Mask
    dead_neurons: Counts
    dead_fraction: Floats
    born_dead: Mask
    never_active: Mask
    ever_active: Mask
    dead_since: Counts
    found_dead: Counts
    last_active: Counts | None
    last_step: int | None = None
    skips_epochs: bool = False

    @property
    def counts_every_step(self) -> bool:
        """Whether the reports count the training steps of every epoch."""
        return self.last_active is not None and not self.skips_epochs

    @property
    def still_active(self) -> Mask:
        """`(neurons,)`: active in the newest training step that was counted, or, without steps, in the newest report."""
        alive = self.ever_active & (self.found_dead < 0)
        return (
            alive
            if self.last_active is None or self.last_step is None
            else alive & (self.last_active >= self.last_step)
        )

    def __repr__(self) -> str:
        return f"<LayerHistory of {number(len(self.epochs), 'report')}: {changes([self])}>"


def changes(layers: Iterable[LayerHistory]) -> str:
    """Returns how many neurons of the layers died and revived, in words."""
    counts = [(int(np.count_nonzero(layer.died)), int(np.count_nonzero(layer.revived))) for layer in layers]
    return f"{sum(died for died, _ in counts):,} died, {sum(revived for _, revived in counts):,} revived"
