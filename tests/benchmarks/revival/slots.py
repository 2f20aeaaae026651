"""Study 5: what the slots of a revived neuron's weights should be: Adam has one step count for all weights.

The digits with one bad step, trained by Adam with rate 0.001, and revived with three kinds of slots: their initial values, as
`revive` has it; the second moments the mean of those of the weights that were not touched; and no reset at all.

Primary outcome: the accuracy at the end. Primary comparison: the mean second moment against the initial values.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import digits
import numpy as np
from stacked_nets import K

from relu_probe.cure import operation
from relu_probe.cure.edit import Edit, value_of
from relu_probe.cure.optimizer_slots import find_slots, reset_slots


def mean_second_moment(edit: Edit, model: Any) -> None:
    """Initial values, and then the mean of the other weights for Adam's second moments."""
    reset_slots(edit, model)
    touched = {id(variable): mask for variable, mask in edit.touched()}
    for slot in find_slots(model):
        mask = touched.get(id(slot.weight))
        if mask is not None and np.any(~mask) and "velocity" in slot.variable.name:
            edit.write(slot.variable, mask, value_of(slot.variable)[~mask].mean())


def no_reset(edit: Edit, model: Any) -> None:
    """All slots stay."""


KINDS = {"nothing": None, "initial values": reset_slots, "mean second moment": mean_second_moment, "no reset": no_reset}


def run(nets: int, seed: int, *, arms: dict[str, Any] = KINDS) -> dict[str, Any]:
    """Kind of slots -> the results of `digits.train`; "nothing" is without a revival."""
    results = {}
    for name, reset in arms.items():
        with _reset_by(reset):
            revive: dict[str, Any] | None = {} if reset else None
            results[name] = digits.train(nets, seed, 12, revive=revive, optimizer=K.optimizers.Adam, rate=0.001)
    return results


@contextmanager
def _reset_by(reset: Any) -> Iterator[None]:
    operation.reset_slots, usual = reset, operation.reset_slots
    try:
        yield
    finally:
        operation.reset_slots = usual
