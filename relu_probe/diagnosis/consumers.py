"""The consumers of a ReLU layer: what its output goes to, and through which weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.diagnosis.pre_activation import BATCH_NORM, LINEAR, batch_norm, has_linear_output, preserves_neurons
from relu_probe.report.layer_report import Mask
from relu_probe.structure.keras_layers import keras_class
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.weight_layout import (
    ALL_UNITS,
    NO_SOURCE,
    Layout,
    WeightMap,
    constant_along,
    outgoing_weights,
)

_KEEPS_CHANNELS = ("Pooling", "UpSampling", "ZeroPadding", "Cropping")


class Norm(NamedTuple):
    """A BatchNormalization behind a ReLU.

    Args:
        call: its call.
        source: for each channel, the neuron of the ReLU; -1 for none.
    """

    call: TracedCall
    source: Layout


@dataclass(frozen=True, eq=False)
class Connection:
    """The weights from the neurons of a ReLU layer to the units of a linear layer.

    Args:
        call: the call of the linear layer.
        weights: its kernel; the numbers of its sources are the neurons.
        passes: `(neurons,)` bool, no scale of zero was met on the way.
        norms: the BatchNormalization layers on the way, the first one first.
        relu: the key of the counted ReLU that the units end in; None if they end in something else, such as a softmax.
    """

    call: TracedCall
    weights: WeightMap
    passes: Mask
    norms: tuple[Norm, ...]
    relu: str | None

    @cached_property
    def connected(self) -> Mask:
        """`(neurons, units)` bool, the weight from the neuron to the unit is not zero."""
        connected = np.zeros((len(self.passes), self.weights.units), bool)
        kernel = np.asarray(self.weights.variable)
        source, unit = (np.broadcast_to(layout, kernel.shape) for layout in self.weights[1:3])
        for row, rows, units in zip(kernel, source, unit):  # row by row, so that indices of a large kernel fit memory
            found = (row != 0) & (rows != NO_SOURCE)
            every = found & (units == ALL_UNITS)
            connected[rows[every]] = True
            connected[rows[found & ~every], units[found & ~every]] = True
        return connected & self.passes[:, None]


class Consumers(NamedTuple):
    """Everything that a ReLU's output goes to: linear layers, and outputs of the model (their indices)."""

    connections: list[Connection]
    outputs: list[int]


class NotVisible(Exception):
    """The trace does not show all consumers. The argument says why, as the end of a sentence about a neuron."""


def consumers_of(trace: CallTrace, relu: ReluLayer, relus: list[ReluLayer]) -> Consumers | None:
    """The consumers of the ReLU; None if the trace does not show all of them."""
    try:
        return find_consumers(trace, relu, relus)
    except NotVisible:
        return None


def find_consumers(trace: CallTrace, relu: ReluLayer, relus: list[ReluLayer]) -> Consumers:
    """The consumers of the ReLU.

    Raises:
        NotVisible: the trace does not show all of them.
    """
    consumers = Consumers([], [])
    walk = _ConsumerWalk(trace, relus, consumers)
    for call in trace.calls_of(relu.layer):
        if not (call.visible and trace.complete):
            raise NotVisible("it stands in code of your own, which hides what its output goes to")
        shape = tuple(int(size or 1) for size in call.output.shape[1:])  # all places of an unknown number are alike
        numbers = neuron_numbers(shape, *(relu.flattened or [relu.axis]))
        walk.follow(call.output, numbers, np.ones(relu.neurons_in(call.output.shape) or 0, bool))
    return consumers


def neuron_numbers(shape: tuple[int, ...], *axes: int) -> Layout:
    """For each element of one sample's output of this shape, the number of its neuron; the axes are those of a batch.

    >>> neuron_numbers((2, 3), -1).tolist(), neuron_numbers((2, 3), -2, -1).tolist()
    ([[0, 1, 2], [0, 1, 2]], [[0, 1, 2], [3, 4, 5]])
    """
    own = [axis % (len(shape) + 1) - 1 for axis in axes]
    sizes = [size if i in own else 1 for i, size in enumerate(shape)]
    return np.broadcast_to(np.arange(int(np.prod(sizes)), dtype=np.int32).reshape(sizes), shape)


class _ConsumerWalk:
    """Follows a ReLU's output downstream and adds what it meets to `found`."""

    def __init__(self, trace: CallTrace, relus: list[ReluLayer], found: Consumers) -> None:
        self.trace, self.found = trace, found
        self.relus = {id(relu.layer): relu for relu in relus}

    def follow(self, tensor: tf.Tensor, sources: Layout, passes: Mask, norms: tuple[Norm, ...] = ()) -> None:
        """Follows one tensor.

        Args:
            tensor: the output of the ReLU, or of a layer that keeps its neurons apart.
            sources: for each element of a sample, the neuron whose value it is; -1 for none.
            passes: `(neurons,)` bool, no scale of zero was met on the way.
            norms: the BatchNormalization layers on the way.

        Raises:
            NotVisible: the trace does not show all consumers.
        """
        index, calls = self.trace.output_index(tensor), self.trace.consumers(tensor)
        if index is None and not calls:
            raise NotVisible("nothing shows what its output goes to")
        if index is not None:
            self.found.outputs.append(index)
        for call in calls:
            name = keras_class(call.layer)
            if name in LINEAR and call.visible and len(call.inputs) == 1:
                weights = _known(outgoing_weights(call.layer, sources), call)
                self.found.connections.append(Connection(call, weights, passes, norms, self._relu_behind(call)))
            elif name == BATCH_NORM and call.visible and len(call.inputs) == 1:
                norm, lets_pass = self._norm(call, sources, len(passes))
                self.follow(call.output, sources, passes & lets_pass, (*norms, norm))
            else:
                self.follow(call.output, moved_sources(call, tensor, sources), passes, norms)

    def _norm(self, call: TracedCall, sources: Layout, neurons: int) -> tuple[Norm, Mask]:
        """The BatchNormalization, and `(neurons,)` bool, whether its scale is not zero."""
        axis, rank = call.layer.axis, call.output.shape.rank
        axis = axis[0] if isinstance(axis, (list, tuple)) else axis
        folded = _known(batch_norm(call.layer, axis, rank), call)
        source = _known(constant_along(sources, axis % rank - 1), call)
        passes = np.zeros(neurons, bool)
        passes[source[(folded[0] != 0) & (source != NO_SOURCE)]] = True
        return Norm(call, source), passes

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


def _known(found: Any, call: TracedCall) -> Any:
    if found is None:
        raise _hides(call)
    return found


def _hides(call: TracedCall) -> NotVisible:
    kind = type(call.layer).__name__
    return NotVisible(f"its output goes to {call.layer.name} ({kind}), in which its weights are not told apart")


def moved_sources(call: TracedCall, tensor: tf.Tensor, sources: Layout) -> Layout:
    """The sources of the output of a call that moves or drops elements, and computes nothing with them.

    Raises:
        NotVisible: the layer does something else.
    """
    name = keras_class(call.layer)
    move = _MOVES.get(name)
    if not call.visible or (len(call.inputs) != 1 and name != "Concatenate"):
        raise _hides(call)
    if move is not None:
        return move(call, tensor, sources)
    if any(part in name for part in _KEEPS_CHANNELS):
        axis = 0 if getattr(call.layer, "data_format", None) == "channels_first" else -1
        channels, shape = _known(constant_along(sources, axis), call), call.output.shape[1:]
        axis = axis % len(shape)
        return np.broadcast_to(channels.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)
    if preserves_neurons(call.layer):
        return sources
    raise _hides(call)


def _flattened(call: TracedCall, tensor: tf.Tensor, sources: Layout) -> Layout:
    first = call.layer.data_format == "channels_first" and sources.ndim > 1
    return (np.moveaxis(sources, 0, -1) if first else sources).reshape(-1)


def _concatenated(call: TracedCall, tensor: tf.Tensor, sources: Layout) -> Layout:
    axis = call.layer.axis % call.output.shape.rank - 1
    parts = [sources if t is tensor else np.full(t.shape[1:], NO_SOURCE, np.int32) for t in call.inputs]
    return np.concatenate(parts, axis)


_MOVES: dict[str, Callable[[TracedCall, tf.Tensor, Layout], Layout]] = {
    "Flatten": _flattened,
    "Concatenate": _concatenated,
    "Reshape": lambda call, tensor, sources: sources.reshape(call.output.shape[1:]),
    "Permute": lambda call, tensor, sources: sources.transpose([axis - 1 for axis in call.layer.dims]),
}
