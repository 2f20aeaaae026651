"""What is cut out of each weight when units are removed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relu_probe.cure.channel_flow import ChannelFlow
from relu_probe.cure.constants import fold_target, response
from relu_probe.cure.edit import value_of
from relu_probe.cure.flow import Units, Use
from relu_probe.diagnosis.pre_activation import BATCH_NORM
from relu_probe.report.layer_report import Floats, Mask
from relu_probe.structure.keras_layers import keras_class
from relu_probe.structure.weight_layout import depthwise_kernel, incoming_weights, input_axis, unit_axis


@dataclass
class Cut:
    """The change of one variable.

    Args:
        variable: the variable.
        keep: for each axis, a mask of the indices that stay.
        closed: a mask that broadcasts to the variable's shape: elements that become zero.
        added: what is added to the variable; it broadcasts too.
    """

    variable: Any
    keep: list[Mask]
    closed: Mask
    added: Floats

    @classmethod
    def nothing(cls, variable: Any) -> "Cut":
        """A cut that changes nothing so far."""
        return cls(variable, [np.ones(size, bool) for size in variable.shape], np.zeros((), bool), np.zeros(()))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what stays."""
        return tuple(int(np.count_nonzero(mask)) for mask in self.keep)

    def stays(self, value: NDArray[Any]) -> NDArray[Any]:
        """What stays of an array of the variable's shape, such as a slot of the optimizer."""
        return value[np.ix_(*self.keep)] if value.ndim else value

    def changed(self, value: NDArray[Any]) -> NDArray[Any]:
        """What stays of the weight itself, or of a moving average of it."""
        if np.any(self.closed) or np.any(self.added):
            value = (np.where(self.closed, 0, value) + self.added).astype(value.dtype)
        return self.stays(value)


class Cuts:
    """The cuts of all variables for the removal of units.

    Args:
        flow: where the units go.
        removed: `(units,)` bool, the units to remove.
        closed: `(units,)` bool, units that stay because a layer needs one; the weights behind them become zero.
    """

    def __init__(self, flow: ChannelFlow, removed: Mask, closed: Mask) -> None:
        self._flow, self._removed, self._closed = flow, removed, closed
        self._cuts: dict[int, Cut] = {}
        for layer, first in flow.producers.values():
            self._cut_units(layer, first)
        for uses in flow.uses.values():
            self._cut_inputs(uses)

    def resizes(self, variable: Any) -> bool:
        """Whether anything of a variable is cut out."""
        return id(variable) in self._cuts and self.of(variable).shape != tuple(variable.shape)

    def value(self, variable: Any) -> NDArray[Any]:
        """What stays of a weight."""
        value = value_of(variable)
        return self.of(variable).changed(value) if id(variable) in self._cuts else value

    def of(self, variable: Any) -> Cut:
        """The cut of a variable."""
        return self._cuts.get(id(variable)) or Cut.nothing(variable)

    def units(self, layer: Any) -> tuple[int, int] | None:
        """The numbers of units of a linear layer before and after; None for another layer."""
        if id(layer) not in self._flow.producers:
            return None
        kernel, _ = incoming_weights(layer)  # type: ignore[misc]
        kept = self.of(kernel).keep[unit_axis(layer) or 0]
        return len(kept), int(np.count_nonzero(kept))

    def _cut_units(self, layer: Any, first: int) -> None:
        kernel, unit = incoming_weights(layer)  # type: ignore[misc]
        keep = ~self._removed[first : first + int(unit.max()) + 1]
        self._cut(kernel, unit_axis(layer), keep)
        if getattr(layer, "bias", None) is not None:
            self._cut(layer.bias, 0, keep)

    def _cut_inputs(self, uses: list[Use]) -> None:
        """Cuts the weights behind removed units, of a layer all of whose calls receive the same units."""
        layer, name = uses[0].call.layer, keras_class(uses[0].call.layer)
        keep = ~_among(uses[0].unit, self._removed)
        if name == BATCH_NORM:
            for weight in (weight for weight in layer.weights if len(weight.shape) == 1):
                self._cut(weight, 0, keep)
        elif name.startswith("Depthwise"):
            self._cut(depthwise_kernel(layer), -2, keep)
            if layer.use_bias:
                self._cut(layer.bias, 0, np.repeat(keep, depthwise_kernel(layer).shape[-1]))
        else:
            self._cut_linear(layer, uses, keep)

    def _cut_linear(self, layer: Any, uses: list[Use], keep: Mask) -> None:
        closed = _among(uses[0].unit, self._closed)
        separable = keras_class(layer).startswith("Separable")
        kernel = depthwise_kernel(layer) if separable else layer.kernel
        self._cut(kernel, input_axis(layer), keep, closed)
        if separable:
            self._cut(layer.pointwise_kernel, -2, np.repeat(keep, kernel.shape[-1]))
        constants = np.where(~keep | closed, uses[0].value, 0)
        if np.any(constants):
            targets = [fold_target(self._flow.trace, use.call) for use in uses]
            for target, sign in {id(target): (target, sign) for target, sign in targets}.values():
                cut = self._cut_of(target)
                cut.added = cut.added + sign * response(layer, constants)

    def _cut(self, variable: Any, axis: int | None, keep: Mask, closed: Mask | None = None) -> None:
        cut, axis = self._cut_of(variable), (axis or 0) % len(variable.shape)
        cut.keep[axis] &= keep
        if closed is not None:
            cut.closed = cut.closed | closed.reshape([-1 if i == axis else 1 for i in range(len(variable.shape))])

    def _cut_of(self, variable: Any) -> Cut:
        return self._cuts.setdefault(id(variable), Cut.nothing(variable))


def _among(unit: Units, chosen: Mask) -> Mask:
    """Whether the unit of each channel is one of those chosen; -1 is none."""
    return np.append(chosen, False)[unit]
