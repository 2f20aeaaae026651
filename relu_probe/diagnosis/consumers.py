"""The consumers of a ReLU layer: what its output goes to, and through which weights."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.diagnosis.pre_activation import BATCH_NORM, LINEAR, batch_norm, has_linear_output, preserves_neurons
from relu_probe.report.layer_report import Mask
from relu_probe.structure.keras_layers import keras_class
from relu_probe.structure.relu_layers import ReluLayer

_KEEPS_CHANNELS = ("Pooling", "UpSampling", "ZeroPadding", "Cropping")


class Connection(NamedTuple):
    """The weights from the neurons of a ReLU layer to the units of a linear layer.

    Args:
        connected: `(neurons, units)` bool, the weight from the neuron to the unit is not zero.
        relu: the key of the counted ReLU that the units end in; None if they end in something else, such as a softmax.
    """

    connected: Mask
    relu: str | None


class Consumers(NamedTuple):
    """Everything that a ReLU's output goes to: linear layers, and outputs of the model (their indices)."""

    connections: list[Connection]
    outputs: list[int]


class _NotVisible(Exception):
    """The trace does not show all consumers."""


def consumers_of(trace: CallTrace, relu: ReluLayer, relus: list[ReluLayer]) -> Consumers | None:
    """The consumers of the ReLU; None if the trace does not show all of them."""
    consumers = Consumers([], [])
    try:
        for call in trace.calls_of(relu.layer):
            if not (call.visible and trace.complete):
                return None
            neurons = int(call.output.shape[relu.axis])
            _ConsumerWalk(trace, relu.axis, relus, consumers).follow(call.output, np.ones(neurons, bool))
    except _NotVisible:
        return None
    return consumers


def reachable_outputs(trace: CallTrace, relu: ReluLayer) -> set[int] | None:
    """The indices of the model's outputs that depend on the ReLU; None if the trace does not show it."""
    calls = trace.calls_of(relu.layer)
    if not calls or not trace.complete or not all(call.visible for call in calls):
        return None
    todo, seen, outputs = [call.output for call in calls], set(), set()
    while todo:
        tensor = todo.pop()
        if id(tensor) not in seen:
            seen.add(id(tensor))
            outputs |= {i for i, output in enumerate(trace.outputs) if output is tensor}
            todo += [call.output for call in trace.consumers(tensor)]
    return outputs


class _ConsumerWalk:
    """Follows a ReLU's output downstream and adds what it meets to `found`."""

    def __init__(self, trace: CallTrace, axis: int, relus: list[ReluLayer], found: Consumers) -> None:
        self.trace, self.axis, self.found = trace, axis, found
        self.relus = {id(relu.layer): relu for relu in relus}

    def follow(self, tensor: tf.Tensor, passes: Mask, flat: bool = False) -> None:
        """Follows one tensor.

        Args:
            tensor: the output of the ReLU, or of a layer that keeps its neurons apart.
            passes: `(neurons,)` bool, no scale of zero was met on the way.
            flat: the positions were flattened, with the neurons as the fastest axis.

        Raises:
            _NotVisible: the trace does not show all consumers.
        """
        index, calls = self.trace.output_index(tensor), self.trace.consumers(tensor)
        if index is None and not calls:
            raise _NotVisible
        if index is not None:
            self.found.outputs.append(index)
        for call in calls:
            name = keras_class(call.layer)
            if not call.visible or len(call.inputs) != 1:
                raise _NotVisible
            if name in LINEAR:
                connected = passes[:, None] & _connected(call.layer, len(passes))
                self.found.connections.append(Connection(connected, self._relu_behind(call)))
            else:
                self.follow(call.output, passes & self._passes(call, flat), flat or name == "Flatten")

    def _passes(self, call: TracedCall, flat: bool) -> Any:
        """Whether the layer lets each neuron pass: True, or `(neurons,)` bool of BatchNormalization."""
        name = keras_class(call.layer)
        if name == BATCH_NORM and not flat:
            if (folded := batch_norm(call.layer, self.axis, call.output.shape.rank)) is None:
                raise _NotVisible
            return folded[0] != 0
        keeps = any(part in name for part in _KEEPS_CHANNELS) and not flat
        flattens = name == "Flatten" and call.layer.data_format == "channels_last" and self.axis == -1 and not flat
        if keeps or flattens or (preserves_neurons(call.layer) and name != BATCH_NORM):
            return True
        raise _NotVisible

    def _relu_behind(self, call: TracedCall) -> str | None:
        """The key of the counted ReLU that the units of a linear layer end in, through layers that preserve neurons."""
        while id(call.layer) not in self.relus:
            calls = self.trace.consumers(call.output)
            following = calls[0] if len(calls) == 1 and has_linear_output(call.layer) else None
            if following is None or self.trace.output_index(call.output) is not None:
                return None
            counted = id(following.layer) in self.relus and keras_class(following.layer) not in LINEAR
            if not (counted or preserves_neurons(following.layer)):
                return None
            call = following
        return self.relus[id(call.layer)].key


def _connected(layer: Any, neurons: int) -> Mask:
    """`(neurons, units)` bool of a Dense layer (also on flattened positions) or a convolution: a weight is not zero."""
    grouped = getattr(layer, "groups", 1) != 1
    if grouped or keras_class(layer) not in ("Dense", "Conv1D", "Conv2D", "Conv3D"):
        raise _NotVisible
    kernel = np.asarray(layer.kernel)
    if kernel.shape[-2] % neurons:
        raise _NotVisible
    return np.any(kernel.reshape(-1, neurons, kernel.shape[-1]) != 0, axis=0)
