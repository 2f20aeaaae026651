"""What does a ReLU feed, and through which weights?"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.diagnosis.pre_activation import BATCH_NORM, LINEAR, batch_norm, hands_on, has_linear_output
from relu_probe.report.layer_report import Mask
from relu_probe.structure.keras_layers import keras_class
from relu_probe.structure.relu_layers import ReluLayer

_KEEPS_CHANNELS = ("Pooling", "UpSampling", "ZeroPadding", "Cropping")


class Connection(NamedTuple):
    """`connected (neurons, units)`: the weight from a neuron to a unit of `layer` is not zero.

    `relu` is the key of the counted ReLU that the units end in, None for another end, such as a softmax.
    """

    connected: Mask
    relu: str | None


class Consumers(NamedTuple):
    """All that a ReLU's output goes to: linear layers, and the model's own outputs (their indices)."""

    fed: list[Connection]
    outputs: list[int]


class _NotVisible(Exception):
    """The structure does not show it."""


def consumers_of(flow: CallTrace, relu: ReluLayer, relus: list[ReluLayer]) -> Consumers | None:
    """What the ReLU feeds; None where the structure does not show all of it."""
    fork = Consumers([], [])
    try:
        for call in flow.of(relu.layer):
            if not (call.visible and flow.whole):
                return None
            neurons = int(call.output.shape[relu.axis])
            _ConsumerWalk(flow, relu.axis, relus, fork).follow(call.output, np.ones(neurons, bool))
    except _NotVisible:
        return None
    return fork


def leads_to(flow: CallTrace, relu: ReluLayer) -> set[int] | None:
    """The model's outputs that the ReLU has any part in (their indices); None where the structure does not show it."""
    calls = flow.of(relu.layer)
    if not calls or not flow.whole or not all(call.visible for call in calls):
        return None
    todo, seen, outputs = [call.output for call in calls], set(), set()
    while todo:
        tensor = todo.pop()
        if id(tensor) not in seen:
            seen.add(id(tensor))
            outputs |= {i for i, output in enumerate(flow.outputs) if output is tensor}
            todo += [call.output for call in flow.consumers(tensor)]
    return outputs


class _ConsumerWalk:
    def __init__(self, flow: CallTrace, axis: int, relus: list[ReluLayer], fork: Consumers) -> None:
        self.flow, self.axis, self.fork = flow, axis, fork
        self.relus = {id(r.layer): r for r in relus}

    def follow(self, tensor: tf.Tensor, passes: Mask, flat: bool = False) -> None:
        """`passes (neurons,)`: no scale of zero on the way. `flat`: the positions are side by side, neurons last."""
        index, consumers = self.flow.output_index(tensor), self.flow.consumers(tensor)
        if index is None and not consumers:
            raise _NotVisible
        if index is not None:
            self.fork.outputs.append(index)
        for call in consumers:
            name = keras_class(call.layer)
            if not call.visible or len(call.inputs) != 1:
                raise _NotVisible
            if name in LINEAR:
                self.fork.fed.append(Connection(passes[:, None] & _connected(call.layer, len(passes)), self._end(call)))
            else:
                self.follow(call.output, passes & self._through(call, flat), flat or name == "Flatten")

    def _through(self, call: TracedCall, flat: bool) -> Any:
        name = keras_class(call.layer)
        if name == BATCH_NORM and not flat:
            if (folded := batch_norm(call.layer, self.axis, call.output.shape.rank)) is None:
                raise _NotVisible
            return folded[0] != 0
        keeps = any(part in name for part in _KEEPS_CHANNELS) and not flat
        flattens = name == "Flatten" and call.layer.data_format == "channels_last" and self.axis == -1 and not flat
        if keeps or flattens or (hands_on(call.layer) and name != BATCH_NORM):
            return True
        raise _NotVisible

    def _end(self, call: TracedCall) -> str | None:
        """The counted ReLU that the units of a linear layer end in, through what keeps each where it is."""
        while id(call.layer) not in self.relus:
            consumers = self.flow.consumers(call.output)
            behind = consumers[0] if len(consumers) == 1 and has_linear_output(call.layer) else None
            if behind is None or self.flow.output_index(call.output) is not None:
                return None
            counted = id(behind.layer) in self.relus and keras_class(behind.layer) not in LINEAR
            if not (counted or hands_on(behind.layer)):
                return None
            call = behind
        return self.relus[id(call.layer)].key


def _connected(layer: Any, neurons: int) -> Mask:
    """`(neurons, units)` of a Dense (its inputs perhaps flattened positions), or a convolution."""
    grouped = getattr(layer, "groups", 1) != 1
    if grouped or keras_class(layer) not in ("Dense", "Conv1D", "Conv2D", "Conv3D"):
        raise _NotVisible
    kernel = np.asarray(layer.kernel)
    if kernel.shape[-2] % neurons:
        raise _NotVisible
    return np.any(kernel.reshape(-1, neurons, kernel.shape[-1]) != 0, axis=0)
