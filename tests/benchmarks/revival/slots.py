"""Study 5: what the slots of a revived neuron's weights should be: Adam has one step count for all weights.

The nets of study 1, revived with three kinds of slots: their initial values, as `revive` has it; the second moments the mean
of those of the weights that were not touched; and no reset at all. (Study 3 with Adam was tried first, with seeds below 1,000:
there no kind of revival changed the mean accuracy of 5 nets by more than 0.3 points.)

With the same nets and seed, "initial values" is the arm "revive by cause" of study 1, and is kept from there.

Primary outcome: the error at the end. Primary comparison: the mean second moment against the initial values.
"""

from typing import Any
from unittest.mock import patch

import collapse_at_birth
import numpy as np

from relu_probe.cure import operation
from relu_probe.cure.edit import Edit, value_of
from relu_probe.cure.optimizer_slots import find_slots, reset_slots


def mean_second_moment(edit: Edit, model: Any) -> None:
    """Initial values, and then for Adam's second moments the mean of those of the other weights of the same net and layer."""
    reset_slots(edit, model)
    touched = {id(variable): mask for variable, mask in edit.touched()}
    for slot in find_slots(model):
        mask = touched.get(id(slot.weight))
        if mask is not None and "velocity" in slot.variable.name:
            others = np.ma.masked_array(value_of(slot.variable), mask)
            mean = others.mean(axis=tuple(range(1, mask.ndim)), keepdims=True).filled(0)
            edit.write(slot.variable, mask, mean)


def no_reset(edit: Edit, model: Any) -> None:
    """All slots stay."""


KINDS = {"initial values": reset_slots, "mean second moment": mean_second_moment, "no reset": no_reset}


def run(nets: int, seed: int, *, arms: dict[str, Any] = KINDS) -> dict[str, Any]:
    """Kind of slots -> the results of `collapse_at_birth.train`."""
    results = {}
    for name, reset in arms.items():
        with patch.object(operation, "reset_slots", reset):
            results[name] = collapse_at_birth.train(nets, seed, collapse_at_birth.EPOCHS, revive={})
    return results
