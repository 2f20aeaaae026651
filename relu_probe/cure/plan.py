"""The weights that lead to the neurons of a ReLU layer and away from them, or why its neurons are left as they are."""

from collections import Counter
from typing import Any, NamedTuple

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.diagnosis.consumers import Connection, Norm, NotVisible, find_consumers
from relu_probe.diagnosis.pre_activation import BATCH_NORM, PreActivation, pre_activation_of
from relu_probe.structure.keras_layers import keras_class, visible_layers
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.weight_layout import Layout, bias_units, incoming_weights


class Left(Exception):
    """The neurons are left as they are. The argument says why, as the end of a sentence about a neuron."""


class Incoming(NamedTuple):
    """What makes the pre-activations of a ReLU layer.

    Args:
        linear: the linear layer.
        kernel: its kernel.
        unit: for each weight of the kernel, its neuron.
        bias: its bias, None if it has none.
        norm: the BatchNormalization before the ReLU, None if there is none.
    """

    linear: Any
    kernel: Any
    unit: Layout
    bias: Any
    norm: Any


class LayerPlan(NamedTuple):
    """What is changed to revive neurons of a ReLU layer.

    Args:
        relu: the ReLU layer.
        incoming: what makes its pre-activations.
        gates: what everything behind the neurons passes first: BatchNormalization, whose gamma becomes 0, or the outgoing
            weights.
    """

    relu: ReluLayer
    incoming: Incoming
    gates: list[Norm | Connection]


class Planner:
    """Finds the weights before and behind ReLU layers.

    Args:
        model: the model.
        trace: the trace of one batch.
        relus: all ReLU layers of the model.
    """

    def __init__(self, model: Any, trace: CallTrace, relus: list[ReluLayer]) -> None:
        self.trace, self.relus = trace, relus
        self._tied = tied_weights(model)

    def plan(self, relu: ReluLayer) -> LayerPlan:
        """The plan of a layer.

        Raises:
            Left: its neurons cannot be revived without a change of other neurons or of predictions.
        """
        return LayerPlan(relu, self._incoming(relu), self._gates(relu))

    # --- before the ReLU ----------------------------------------------------------------------------------------------

    def _incoming(self, relu: ReluLayer) -> Incoming:
        found = [pre_activation_of(self.trace, call, relu) for call in self.trace.calls_of(relu.layer)]
        known = [each for each in found if each is not None]
        if not known or len(known) < len(found) or any(each.linear is not known[0].linear for each in known):
            raise Left("its input is not the output of one linear layer alone")
        linear, neurons = known[0].linear, relu.neurons_in(known[0].chain[-1].output.shape)
        weights = incoming_weights(linear)
        if weights is None or int(weights[1].max()) + 1 != neurons:
            raise Left(f"the layout of the weights of {linear.name} ({type(linear).__name__}) is not known")
        norms = [call.layer for call in known[0].chain if keras_class(call.layer) == BATCH_NORM]
        if len(norms) > 1:
            raise Left(f"{len(norms)} BatchNormalization layers stand before it")
        self._check_chain(known)
        bias = bias_units(linear, neurons)
        if bias is None and getattr(linear, "bias", None) is not None:
            raise Left(f"the bias of {linear.name} has another shape than one value for each neuron")
        return Incoming(linear, *weights, None if bias is None else bias[0], norms[0] if norms else None)

    def _check_chain(self, found: list[PreActivation]) -> None:
        """Checks that the layers before the ReLU may be changed, and feed nothing else."""
        ours = {id(call) for each in found for call in each.chain}
        for each in found:
            for call, following in zip(each.chain, [*each.chain[1:], None]):
                self._check_weights(call, ours)
                if following is not None and not self._feeds_only(call, following):
                    raise Left(f"the output of {call.layer.name} goes elsewhere too, before the ReLU")

    def _feeds_only(self, call: TracedCall, following: TracedCall) -> bool:
        alone = all(consumer is following for consumer in self.trace.consumers(call.output))
        return alone and self.trace.output_index(call.output) is None

    # --- behind the ReLU ----------------------------------------------------------------------------------------------

    def _gates(self, relu: ReluLayer) -> list[Norm | Connection]:
        try:
            consumers = find_consumers(self.trace, relu, self.relus)
        except NotVisible as hidden:
            raise Left(str(hidden)) from hidden
        if consumers.outputs:
            raise Left("it is part of an output of the model: see what diagnose advises")
        gates = [each.norms[0] if each.norms else each for each in consumers.connections]
        ours = {id(gate.call) for gate in gates}
        for gate in gates:
            self._check_weights(gate.call, ours)
            if isinstance(gate, Norm) and not (gate.call.layer.scale and gate.call.layer.center):
                raise Left(f"{gate.call.layer.name}, the BatchNormalization behind it, has no gamma or no beta")
        return gates

    def _check_weights(self, call: TracedCall, ours: set[int]) -> None:
        """Checks that the weights of a layer may be changed: visible, trained, and used in no other call than `ours`."""
        layer = call.layer
        weights = getattr(layer, "weights", [])
        if not call.visible:
            raise Left(f"{layer.name} stands in code of your own, which may use its weights elsewhere")
        if weights and not (layer.trainable and layer.trainable_weights):
            raise Left(f"{layer.name} is frozen")
        if weights and any(id(other) not in ours for other in self.trace.calls_of(layer)):
            raise Left(f"{layer.name} is also called on something else")
        if any(id(weight) in self._tied for weight in weights):
            raise Left(f"{layer.name} shares its weights with another layer")


def tied_weights(model: Any) -> set[int]:
    """The ids of the weights that several layers share."""
    layers = [visible.layer for visible in visible_layers(model)]
    owners = Counter(key for layer in layers for key in {id(v) for v in getattr(layer, "weights", [])})
    return {key for key, count in owners.items() if count > 1}
