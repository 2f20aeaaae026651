"""What a tensor carries: the units on which its channels depend, and which of them are constant."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from relu_probe.diagnosis.call_trace import TracedCall
from relu_probe.diagnosis.consumers import neuron_numbers
from relu_probe.report.layer_report import Floats
from relu_probe.structure.relu_function import leaves_unchanged, relu_ceiling, relu_threshold
from relu_probe.structure.weight_layout import NO_SOURCE, Layout, constant_along

Units = NDArray[np.intp]


class Flow(NamedTuple):
    """What a tensor carries.

    Args:
        channels: for each element of a sample, the number of its channel; -1 for an element that depends on no unit.
        unit: `(channels,)`, the unit on which each channel depends.
        value: `(channels,)` float64, the value of each channel; nan if it may differ between inputs.
    """

    channels: Layout
    unit: Units
    value: Floats

    def along(self, axis: int) -> "Flow | None":
        """The flow with one channel for each index of an axis of the batch; None if its channels differ along others."""
        found = constant_along(self.channels, axis % (self.channels.ndim + 1) - 1)
        return None if found is None else Flow(neuron_numbers(self.channels.shape, axis), *self.numbered(found))

    def numbered(self, channels: Layout) -> tuple[Units, Floats]:
        """The unit and the value of each of these channels, of which -1 has none."""
        known = channels != NO_SOURCE
        unit, value = np.full(len(channels), NO_SOURCE, np.intp), np.full(len(channels), np.nan)
        unit[known], value[known] = self.unit[channels[known]], self.value[channels[known]]
        return unit, value


class Use(NamedTuple):
    """What a call of a layer with weights receives.

    Args:
        call: the call.
        unit: `(inputs,)`, for each channel of its input the unit on which it depends; -1 for none.
        value: `(inputs,)` float64, its value; nan if it may differ between inputs.
    """

    call: TracedCall
    unit: Units
    value: Floats


def nothing_in(tensor: tf.Tensor) -> Flow:
    """The flow of a tensor that depends on no unit."""
    shape = tuple(tensor.shape[1:])
    return Flow(np.broadcast_to(np.int32(NO_SOURCE), shape), np.zeros(0, np.intp), np.zeros(0))


def channel_axis(layer: Any) -> int:
    """The axis of the channels in the inputs and outputs of a layer."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def relu_of_constants(function: Any, value: Floats) -> Floats:
    """The function of constants; nan of one at which it is not known."""
    identity = leaves_unchanged(function, relu_ceiling(function))
    above = np.minimum(value, relu_ceiling(function) or np.inf) if identity else np.full_like(value, np.nan)
    return np.where(value <= relu_threshold(function), 0.0, above)
