"""What revived neurons lead to: outgoing weights, or the gamma of BatchNormalization behind them, become zero."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relu_probe.cure.edit import Edit
from relu_probe.cure.plan import LayerPlan
from relu_probe.diagnosis.consumers import Connection, Norm
from relu_probe.report.layer_report import Mask


def close_gates(edit: Edit, plan: LayerPlan, neurons: NDArray[np.intp], revived: Mapping[str, Mask]) -> None:
    """Makes what the neurons lead to zero, unless it is a neuron that is revived too.

    Every path from a revived neuron then crosses a zero before it reaches a prediction, and a chain of dead layers wakes at
    once.

    Args:
        edit: takes the changes.
        plan: the plan of the neurons' layer.
        neurons: the revived neurons.
        revived: key of a layer -> `(neurons,)` bool, the neurons that are revived in the same call.
    """
    for gate in plan.gates:
        if isinstance(gate, Norm):
            _close_norm(edit, gate, neurons)
        else:
            _close_weights(edit, gate, neurons, revived)


def _close_weights(edit: Edit, connection: Connection, neurons: NDArray[np.intp], revived: Mapping[str, Mask]) -> None:
    kernel, source, unit, units = connection.weights
    source, unit = (np.broadcast_to(layout, tuple(kernel.shape)) for layout in (source, unit))
    keeps = revived.get(connection.relu or "", np.zeros(units, bool))
    leaving = np.isin(source, neurons)
    edit.touch(kernel, leaving)
    # A unit of -1 stands for all units: such a weight leads to others too.
    stays = (unit >= 0) & keeps[unit] if len(keeps) == units else np.zeros(unit.shape, bool)
    edit.write(kernel, leaving & ~stays, 0)


def _close_norm(edit: Edit, norm: Norm, neurons: NDArray[np.intp]) -> None:
    """gamma = 0, and beta what the channel emits now: a constant, because its neuron is dead."""
    layer, closed = norm.call.layer, np.isin(norm.source, neurons)
    edit.write(layer.beta, closed, _emitted(norm))
    edit.write(layer.gamma, closed, 0)


def _emitted(norm: Norm) -> Any:
    """`(channels,)`, the values at the first position of the first sample, before any change."""
    axis = norm.call.layer.axis
    axis = axis[0] if isinstance(axis, (list, tuple)) else axis
    output = np.moveaxis(np.asarray(norm.call.output), axis, -1)
    return output.reshape(-1, output.shape[-1])[0]
