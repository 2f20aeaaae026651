"""The layers of a model that end in a ReLU, with their keys."""

import weakref
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.structure.call_owners import may_have_functions
from relu_probe.structure.keras_layers import (
    LocatedLayer,
    is_activation_layer,
    locate_layers,
    output_activation,
    predecessors,
)
from relu_probe.structure.neuron_axes import Axes, NeuronAxes
from relu_probe.structure.relu_function import is_relu, leaves_unchanged, relu_ceiling, relu_threshold
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.layer_names import unique

_MOST_SHOWN = 10  # layers in a message


@dataclass(frozen=True)
class ReluLayer:
    """A layer (or, in a functional graph, an operation) whose output is a ReLU's.

    Args:
        key: its name in reports, tags and `layers=`.
        ref: a weak reference to the layer, so that what is kept for a model does not keep the model alive.
        axis: the axis of the neurons in the output: -1, or 1 if the channels come first.
        ceiling: the value at which the activation is bounded, None if it is not.
        threshold: the largest pre-activation at which the activation is zero.
        path: the names from below the outermost model, joined by `/`; `layers=` takes it too.
        flattened: the axes that together are the neurons, counted from the end: of `EinsumDense` with more than one, or with
            one in the middle. Before the output is counted, they are flattened into its last axis. () for all other layers.
        axis_from: what tells the axis. "structure" proves it. "convention": the structure does not show it, and the channels are last
            unless the operations of a step show otherwise. "": some layer of the model puts the channels elsewhere, and the
            operations of a step have to show that this one does not.
    """

    key: str
    ref: Any
    axis: int
    ceiling: float | None
    threshold: float = 0.0
    path: str = ""
    flattened: Axes = ()
    axis_from: str = "structure"

    @property
    def layer(self) -> Any:
        """The layer, None once it was deleted."""
        return self.ref()

    def neurons_in(self, shape: Any) -> int | None:
        """Returns the number of neurons in an output of this shape, None if it is not known."""
        sizes = [shape[axis] for axis in self.flattened or (self.axis,)]
        return None if None in sizes else int(np.prod(sizes))

    def width(self) -> int:
        """Returns the number of neurons of a layer that was never called, 0 if it is not known."""
        try:
            return self.neurons_in(self.layer.output.shape) or 0
        except Exception:
            own = vars(self.layer)
            return int(own.get("units") or own.get("filters") or 0)

    def neurons_last(self, output: Any) -> tf.Tensor:
        """Returns the output with the flattened axes as its last one; the output itself if there are none."""
        if not self.flattened:
            return output
        rank = output.shape.rank
        own = [axis % rank for axis in self.flattened]
        others = [axis for axis in range(rank) if axis not in own]
        order, shape = [*others, *own], tf.shape(output)
        moved = output if order == sorted(order) else tf.transpose(output, order)
        flat = tf.reshape(moved, [*(output.shape[i] or shape[i] for i in others), self.neurons_in(output.shape)])
        return tf.ensure_shape(flat, [*(output.shape[i] for i in others), self.neurons_in(output.shape)])


def find_relus(model: Any) -> list[ReluLayer]:
    """Returns the ReLU layers of `model`, in its order; none, if it may only have ReLUs that are no layers of their own.

    Raises:
        ValueError: the model has no ReLU.
    """
    located = locate_layers(model)
    functions = {id(each.layer): _relu(each.layer) for each in located}
    found = _without_repeats([each for each in located if functions[id(each.layer)] is not None], functions)
    if not found and not may_have_functions(model):
        raise ValueError(no_relu(model))
    keys = unique([each.path for each in found])
    axes = NeuronAxes(model, located)
    return [_relu_layer(key, each, functions[id(each.layer)], axes) for key, each in zip(keys, found)]


def _relu_layer(key: str, located: LocatedLayer, function: Any, axes: NeuronAxes) -> ReluLayer:
    found = axes.of_relu(located, activation_layer=is_activation_layer(located.layer))
    return ReluLayer(
        key,
        weakref.ref(located.layer),
        axis=1 if found == (1,) else -1,
        ceiling=relu_ceiling(function),
        threshold=relu_threshold(function),
        path="/".join(located.path),
        flattened=() if found in ((), (1,), (-1,)) else found,
        axis_from="structure" if found else axes.otherwise,
    )


def _without_repeats(relus: list[LocatedLayer], functions: dict[int, Any]) -> list[LocatedLayer]:
    """Leaves out a ReLU directly behind counted ReLUs that it leaves unchanged: it would count the same neurons a second time."""
    counted: set[int] = set()
    kept = []
    for relu in relus:
        inputs = [id(layer) for layer in predecessors(relu)] if is_activation_layer(relu.layer) else []
        repeats = bool(inputs) and all(
            key in counted and leaves_unchanged(functions[id(relu.layer)], relu_ceiling(functions[key]))
            for key in inputs
        )
        counted.add(id(relu.layer))
        if not repeats:
            kept.append(relu)
    return kept


def _relu(layer: Any) -> Any:
    """The function that the layer ends in if it is a hard ReLU, else None."""
    function = output_activation(layer)
    return function if function is not None and is_relu(function) else None


def no_relu(model: Any) -> str:
    """Returns the message that no ReLU was found in a model."""
    layers = [each for each in locate_layers(model) if not isinstance(each.layer, tf.keras.layers.InputLayer)]
    looked_at = [
        f"{shown('/'.join(each.path))} ({type(each.layer).__name__}{_activation_name(each.layer)})"
        for each in layers[:_MOST_SHOWN]
    ]
    soft = {name for each in layers if (name := _activation_name(each.layer).strip(", ")) in ("sigmoid", "tanh")}
    hint = f" {' and '.join(sorted(soft))} units can saturate but not die." if soft else ""
    if not model.built:
        hint += " The model is not built: layers that are made while it is built are found after a call on a batch."
    more = f", ... ({len(layers):,} in all)" if len(layers) > _MOST_SHOWN else ""
    return (
        f"no ReLU found in model {shown(repr(model.name))}; looked at {', '.join(looked_at) or 'no layers'}{more}.{hint} Expected "
        'a layer that ends in a ReLU, such as keras.layers.ReLU() or Dense(n, activation="relu"), or a function in a call of your '
        "own: tf.nn.relu(x), keras.ops.relu(x) or tf.maximum(x, 0.0). Other spellings, such as tf.where(x > 0, x, 0.0), leave no "
        "operation that could be found."
    )


def _activation_name(layer: Any) -> str:
    activation = vars(layer).get("activation")
    return f", {activation.__name__}" if isinstance(activation, FunctionType) else ""
