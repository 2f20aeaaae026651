"""The layers of a model that end in a ReLU, with their keys, and their selection by name, glob or object."""

import weakref
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from relu_probe.structure.call_owners import may_have_functions, possible_keys
from relu_probe.structure.keras_layers import (
    LocatedLayer,
    inbound_layers,
    is_activation_layer,
    keras_class,
    locate_layers,
    output_activation,
    predecessors,
)
from relu_probe.structure.relu_function import is_relu, leaves_unchanged, relu_ceiling, relu_threshold
from relu_probe.utils.foreign_text import shown, shown_names
from relu_probe.utils.layer_names import matching, unique

_OTHER_AXES = ("EinsumDense", "Reshape", "Permute", "Lambda", "Transpose", "Moveaxis", "Swapaxes", "Einsum")
_MOST_SHOWN = 10  # layers in a message
_MOST_LAYERS_BACK = 32  # between a ReLU layer and the layer that says where its channels are


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
    """

    key: str
    ref: Any
    axis: int
    ceiling: float | None
    threshold: float = 0.0
    path: str = ""

    @property
    def layer(self) -> Any:
        """The layer, None once it was deleted."""
        return self.ref()

    def width(self) -> int:
        """Returns the number of neurons of a layer that was never called, 0 if it is not known."""
        try:
            return int(self.layer.output.shape[self.axis])
        except Exception:
            return int(getattr(self.layer, "units", None) or getattr(self.layer, "filters", None) or 0)


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
    return [_relu_layer(key, each, functions[id(each.layer)]) for key, each in zip(keys, found)]


def select_before_a_step(relus: list[ReluLayer], layers: Any, model: Any) -> list[str]:
    """Returns the keys that `layers=` selects of the ReLU layers, before a step has shown the ReLUs written as functions.

    Raises:
        ValueError: it cannot select any ReLU of the model.
    """
    possible = [ReluLayer(key, weakref.ref(layer), -1, None, path=key) for key, layer in possible_keys(model)]
    selected = select_layers(relus if layers is None else [*relus, *possible], layers, model)
    return [relu.key for relu in relus if relu.key in selected]


def select_layers(relus: list[ReluLayer], layers: Any, model: Any) -> list[str]:
    """Returns the keys that the argument `layers=` selects, in the order of the model.

    Args:
        relus: the counted layers of the model.
        layers: a name, glob or layer object, or several; None for all.
        model: the model.

    Raises:
        ValueError: one of them names no counted ReLU of the model.
    """
    if layers is None:
        return [relu.key for relu in relus]
    layers = layers if isinstance(layers, (list, tuple, set)) else [layers]
    selected = [relu.key for item in layers for relu in _matching(relus, item, model)]
    if not selected:
        raise ValueError(f"layers={layers!r} asks for no layer; {_expected(relus)}")
    return [relu.key for relu in relus if relu.key in selected]


def _relu_layer(key: str, located: LocatedLayer, function: Any) -> ReluLayer:
    ref, axis = weakref.ref(located.layer), _neuron_axis(located)
    return ReluLayer(key, ref, axis, relu_ceiling(function), relu_threshold(function), "/".join(located.path))


def _matching(relus: list[ReluLayer], item: Any, model: Any) -> list[ReluLayer]:
    if isinstance(item, str):
        keys = matching([r.key for r in relus], item)
        # A `*` also matches a slash: "dense*" must not mean all layers of a sub-model called "densenet".
        paths = matching([r.path for r in relus], item) if "/" in item and item not in keys else []
        hits = [r for r in relus if r.key in keys or r.path in paths]
    else:
        hits = [r for r in relus if r.layer is item]
    if not hits:
        name = item if isinstance(item, str) else getattr(item, "name", item)
        known = any(
            place.layer is item or item in (place.path[-1], "/".join(place.path)) for place in locate_layers(model)
        )
        why = "is a layer of the model but no ReLU that is counted" if known else "matches no layer of the model"
        raise ValueError(f"layers={name!r} {why}; {_expected(relus)}")
    return hits


def _expected(relus: list[ReluLayer]) -> str:
    return f"expected names, globs or layer objects from {shown_names(r.key for r in relus)}."


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


def _neuron_axis(located: LocatedLayer) -> int:
    """1 for a `channels_first` layer with its own activation, or a ReLU layer that one feeds; else -1."""
    inputs, layer = predecessors(located), located.layer
    # Backwards through layers that keep the axes: BatchNormalization, pooling, Dropout.
    for _ in range(_MOST_LAYERS_BACK):
        if data_format := getattr(layer, "data_format", None):
            return 1 if data_format == "channels_first" and "Flatten" not in type(layer).__name__ else -1
        if not inputs or isinstance(layer, tf.keras.layers.Dense) or keras_class(layer) in _OTHER_AXES:
            return -1
        layer = inputs[0]
        inputs = inbound_layers(layer)
    return -1


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
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return f", {name}" if name else ""
