"""Which units are removed, which neurons are left, and how large the layers become."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from relu_probe.cure.channel_flow import ChannelFlow
from relu_probe.cure.cuts import Cuts
from relu_probe.cure.layer_flow import why_fixed
from relu_probe.cure.shrunk import Indices, LayerSize
from relu_probe.diagnosis.pre_activation import pre_activation_of
from relu_probe.report.layer_report import Mask
from relu_probe.structure.keras_layers import locate_layers
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.weight_layout import NO_SOURCE
from relu_probe.utils.layer_names import unique

_HIDDEN = "its layer is of an unknown kind, or is called inside another layer"
_SEVERAL_AXES = "its neurons are several axes of its output"
_NO_AXIS = "the structure of the model does not show on which axis its neurons are"
_NO_UNITS = "its input is not the output of one linear layer alone"
_LAST = "it stays, because its layer keeps at least one unit; the weights behind it are zero now"


class Removal:
    """The units to remove: all that nothing blocks.

    Args:
        flow: where the units go.

    Attributes:
        removed: `(units,)` bool, the units to remove.
        closed: `(units,)` bool, those that stay because they are the last of their layer.
    """

    def __init__(self, flow: ChannelFlow) -> None:
        self._flow = flow
        self.removed, self.closed = np.ones(flow.size, bool), np.zeros(flow.size, bool)
        self.removed[list(flow.blocked)] = False
        for first, end in self._ranges().values():
            if self.removed[first:end].all():
                self.removed[first], self.closed[first] = False, True

    def units(self, names: Mapping[int, str]) -> dict[str, Indices]:
        """Name of a layer -> the units that it loses."""
        each = {names[key]: np.flatnonzero(self.removed[first:end]) for key, (first, end) in self._ranges().items()}
        return {name: units for name, units in each.items() if len(units)}

    def left(self, relus: list[ReluLayer], useless: Mapping[str, Mask]) -> dict[str, dict[str, Indices]]:
        """Name of a ReLU layer -> reason -> the neurons that were to be removed and stay."""
        found: dict[str, dict[str, list[int]]] = {}
        for relu in relus:
            for neuron in np.flatnonzero(useless.get(relu.key, [])):
                if why := self._why_left(relu, int(neuron)):
                    found.setdefault(relu.key, {}).setdefault(why, []).append(int(neuron))
        return {key: {why: np.array(neurons) for why, neurons in reasons.items()} for key, reasons in found.items()}

    def _why_left(self, relu: ReluLayer, neuron: int) -> str:
        """Why a neuron stays; "" if it goes."""
        calls = self._flow.neurons.get(relu.key)
        if calls is None:
            unknown = _HIDDEN if relu.axis_from == "structure" else _NO_AXIS
            return _SEVERAL_AXES if relu.flattened else self._why_fixed(relu) or unknown
        units = [int(units[neuron]) for units in calls]
        unit = next((unit for unit in units if unit == NO_SOURCE or not self.removed[unit]), None)
        if unit is None:
            return ""
        if unit == NO_SOURCE:
            return self._why_fixed(relu) or _NO_UNITS
        return _LAST if self.closed[unit] else self._flow.blocked[unit]

    def _why_fixed(self, relu: ReluLayer) -> str:
        """Why the linear layer before a ReLU keeps its units; "" if there is none, or nothing that keeps them."""
        calls = self._flow.trace.calls_of(relu.layer)
        found = pre_activation_of(self._flow.trace, calls[0], relu) if calls else None
        return why_fixed(
            relu.layer if found is None else found.linear
        )  # Keras runs a quantized layer without its `call`

    def _ranges(self) -> dict[int, tuple[int, int]]:
        """Id of a layer -> the number of its first unit, and that behind its last."""
        starts = [first for _, first in self._flow.producers.values()]
        return dict(zip(self._flow.producers, zip(starts, [*starts[1:], self._flow.size])))


def layer_names(model: Any) -> dict[int, str]:
    """Id of a layer -> its name, with the names of the models that hold it where another layer has the same."""
    located = locate_layers(model)
    return dict(zip((id(each.layer) for each in located), unique([each.path for each in located])))


def layer_sizes(flow: ChannelFlow, cuts: Cuts, names: Mapping[int, str]) -> tuple[LayerSize, ...]:
    """The layers that become smaller, in the order of the model."""
    layers = [*(layer for layer, _ in flow.producers.values()), *(uses[0].call.layer for uses in flow.uses.values())]
    by_id, found = {id(layer): layer for layer in layers}, []
    for key in (key for key in names if key in by_id):
        before, after = ([int(np.prod(shape)) for shape in shapes] for shapes in zip(*_shapes(by_id[key], cuts)))
        if sum(after) < sum(before):
            found.append(LayerSize(names[key], cuts.units(by_id[key]), (sum(before), sum(after))))
    return tuple(found)


def _shapes(layer: Any, cuts: Cuts) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(tuple(weight.shape), cuts.of(weight).shape) for weight in layer.weights]
