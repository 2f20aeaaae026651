"""Where the units of linear layers go: which channels depend on which unit, and which of these are constant.

A unit can be removed if what reaches the weights behind it is the same number for every input. It starts as a value that is not
known. A dead ReLU makes it 0, and BatchNormalization or a depthwise convolution behind that another constant.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.cure.constants import Unfoldable, fold_target
from relu_probe.cure.flow import Flow, Units, Use, channel_axis, nothing_in, relu_of_constants
from relu_probe.cure.layer_flow import concatenated, convolved_by_depth, moved, normalized
from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.diagnosis.consumers import neuron_numbers
from relu_probe.diagnosis.pre_activation import BATCH_NORM, LINEAR, has_linear_output
from relu_probe.report.layer_report import Floats, Mask
from relu_probe.structure.keras_layers import keras_class, output_activation
from relu_probe.structure.neuron_axes import kernel_axes
from relu_probe.structure.relu_function import is_relu
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.weight_layout import NO_SOURCE, bias_units, incoming_weights, input_axis, outgoing_weights

_INCOMPLETE = "the model computes or casts something between its layers"


class ChannelFlow:
    """Follows all units through one trace.

    Args:
        trace: of one batch.
        relus: all ReLU layers of the model.
        dead: key of a ReLU layer -> `(neurons,)` bool, the neurons to remove.
        tied: ids of the weights that several layers share.

    Attributes:
        producers: the layers whose units these are, with the number of the first.
        uses: id of a layer -> what each of its calls receives, for the layers with weights that the units pass.
        blocked: unit -> why it cannot be removed, as the end of a sentence about a neuron.
        neurons: key of a ReLU layer -> for each of its calls the unit of each neuron; -1 for none.
    """

    def __init__(
        self, trace: CallTrace, relus: list[ReluLayer], dead: Mapping[str, Mask], tied: set[int] | None = None
    ) -> None:
        self.trace, self._dead, self._tied = trace, dead, tied or set()
        self._relus = {id(relu.layer): relu for relu in relus}
        self._flows: dict[int, Flow] = {}
        self.producers: dict[int, tuple[Any, int]] = {}  # by id of the layer
        self.size = 0  # the number of units
        self.uses: dict[int, list[Use]] = {}
        self.blocked: dict[int, str] = {}
        self.neurons: dict[str, list[Units]] = {}
        for call in trace.calls:
            self._follow(call)
        for output in trace.outputs:
            self._block(self._flow_of(output), "it is part of an output of the model")
        for call in trace.calls:
            if not trace.consumers(call.output):
                self._block(self._flow_of(call.output), "nothing shows what its output goes to")
        for uses in self.uses.values():
            self._check_uses(uses)

    # --- one call -----------------------------------------------------------------------------------------------------

    def _follow(self, call: TracedCall) -> None:
        flow = self._passed(call) if call.visible and self.trace.complete else None
        if flow is None:
            why = f"its output goes to {call.layer.name} ({type(call.layer).__name__}), whose input cannot be made smaller"
            for tensor in call.inputs:
                self._block(self._flow_of(tensor), why if self.trace.complete else _INCOMPLETE)
        elif (active := self._activated(call, flow)) is not None:
            self._flows[id(call.output)] = active
        else:
            self._block(flow, f"the activation of {call.layer.name} is not a ReLU")

    def _passed(self, call: TracedCall) -> Flow | None:
        """What the output of a call carries before the activation; None for a layer that is not known."""
        name, flows = keras_class(call.layer), [self._flow_of(tensor) for tensor in call.inputs]
        if name == "Concatenate":
            return concatenated(call, flows)
        if len(flows) != 1:
            return None
        if name == BATCH_NORM:
            return self._normalized(call, flows[0])
        weighted = self._depthwise if name.startswith("Depthwise") else self._linear
        return weighted(call, flows[0]) if name in LINEAR else self._moved(call, flows[0])

    def _activated(self, call: TracedCall, flow: Flow) -> Flow | None:
        """The flow behind the activation of the layer; None if that is not known."""
        function = output_activation(call.layer)
        if has_linear_output(call.layer):
            return flow
        if not is_relu(function):
            return None
        flow = flow._replace(value=relu_of_constants(function, flow.value))
        relu = self._relus.get(id(call.layer))
        return flow if relu is None or relu.flattened else self._dead_or_alive(call, relu, flow)

    def _dead_or_alive(self, call: TracedCall, relu: ReluLayer, flow: Flow) -> Flow | None:
        """The flow with the neurons of a ReLU as its channels; those that are dead are 0."""
        sizes = list(call.output.shape[1:])
        dead = self._dead.get(relu.key, np.zeros(call.output.shape[relu.axis], bool))
        proved = relu.axis_from == "structure" or sizes.count(len(dead)) == 1
        if not proved or call.output.shape[relu.axis] != len(dead):
            return flow
        numbered = flow.along(relu.axis)
        if numbered is None:
            return None
        self.neurons.setdefault(relu.key, []).append(numbered.unit)
        return numbered._replace(value=np.where(dead, 0.0, numbered.value))

    # --- layers -------------------------------------------------------------------------------------------------------

    def _moved(self, call: TracedCall, flow: Flow) -> Flow | None:
        found = moved(call, flow)
        if found is not None and "ZeroPadding" in keras_class(call.layer):
            why = f"{call.layer.name} pads the constant that it leaves behind with zeros"
            self._block_units(flow.unit[~np.isnan(flow.value) & (flow.value != 0)], why)
        return found

    def _normalized(self, call: TracedCall, flow: Flow) -> Flow | None:
        axes = tf.nest.flatten(call.layer.axis)
        received = flow.along(axes[0]) if len(axes) == 1 else None
        if received is None:
            return None
        self._use(call, received.unit, received.value)
        return normalized(call, received)

    def _depthwise(self, call: TracedCall, flow: Flow) -> Flow | None:
        received = flow.along(channel_axis(call.layer))
        if received is None or incoming_weights(call.layer) is None:
            return None
        self._use(call, received.unit, received.value)
        return convolved_by_depth(call, received)

    def _linear(self, call: TracedCall, flow: Flow) -> Flow | None:
        """The units of a linear layer, which takes in those before it."""
        layer = call.layer
        weights = outgoing_weights(layer, flow.channels) if getattr(layer, "groups", 1) == 1 else None
        if weights is None or input_axis(layer) is None:
            return None
        received = flow.numbered(weights.source.reshape(-1))
        self._use(call, *received)
        self._check_constants(call, *received)
        return self._produced(call, weights.units)

    def _produced(self, call: TracedCall, units: int) -> Flow:
        """The units of a linear layer, which may be removed; nothing if they are not the channels of its output."""
        layer, axis = call.layer, channel_axis(call.layer)
        has_bias = getattr(layer, "bias", None) is not None
        moved = keras_class(layer) == "EinsumDense" and kernel_axes(layer.equation) != (-1,)
        if moved or call.output.shape[axis] != units or (has_bias and bias_units(layer, units) is None):
            return nothing_in(call.output)
        _, first = self.producers.setdefault(id(layer), (layer, self.size))
        self.size = max(self.size, first + units)
        channels = neuron_numbers(tuple(call.output.shape[1:]), axis)
        return Flow(channels, np.arange(first, first + units), np.full(units, np.nan))

    # --- what cannot be removed ---------------------------------------------------------------------------------------

    def _check_constants(self, call: TracedCall, unit: Units, value: Floats) -> None:
        """Blocks the units whose values the layer cannot do without."""
        name, varies = call.layer.name, np.isnan(value)
        self._block_units(unit[varies], f"{name} also receives it where it is not constant")
        constant = unit[~varies & (value != 0)]
        if len(constant):
            try:
                fold_target(self.trace, call)
            except Unfoldable as why:
                self._block_units(constant, f"it leaves a constant behind, which cannot be moved into {name}: {why}")

    def _check_uses(self, uses: list[Use]) -> None:
        """Blocks the units that only some of a layer's calls, or of the layers that share its weights, receive."""
        layer, first = uses[0].call.layer, uses[0]
        same = all(
            np.array_equal(use.unit, first.unit) and np.array_equal(use.value, first.value, equal_nan=True)
            for use in uses
        )
        complete = len(uses) == len(self.trace.calls_of(layer))
        tied = any(id(weight) in self._tied for weight in layer.weights)
        why = f"{layer.name} {'shares its weights with another layer' if tied else 'is also called on something else'}"
        for use in uses:
            if tied or not (same and complete):
                self._block_units(use.unit, why)
            if tied or not complete:
                self._block(self._flow_of(use.call.output), why)

    def _block(self, flow: Flow, why: str) -> None:
        self._block_units(flow.unit[np.unique(flow.channels[flow.channels != NO_SOURCE])], why)

    def _block_units(self, units: Any, why: str) -> None:
        for unit in units:
            if unit != NO_SOURCE:
                self.blocked.setdefault(int(unit), why)

    def _use(self, call: TracedCall, unit: Units, value: Floats) -> None:
        self.uses.setdefault(id(call.layer), []).append(Use(call, unit, value))

    def _flow_of(self, tensor: tf.Tensor) -> Flow:
        return self._flows.get(id(tensor)) or nothing_in(tensor)
