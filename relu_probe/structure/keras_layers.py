"""What stands where in a Keras model? The only file that knows Keras's structure and private names."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

# Layers that end in the `activation` they carry. A custom layer with an attribute of that name may end in anything.
_ENDS_IN_ACTIVATION = (".layers.core.", ".layers.convolutional.", ".layers.activation")
_IS_ACTIVATION = (".layers.activation", ".layers.core.activation", ".layers.core.lambda", ".layers.core.tf_op_layer")


@dataclass(frozen=True)
class LocatedLayer:
    layer: Any
    path: tuple[str, ...]
    before: Any  # the layer before it in a Sequential, which knows it even when unbuilt


def walk(model: Any, path: tuple[str, ...] = (), seen: set[int] | None = None) -> list[LocatedLayer]:
    """All layers and operations below `model`, outer ones first, each once, RNN layers and cells left out."""
    seen = {id(model)} if seen is None else seen
    places, before = [], None
    for layer in _children(model):
        if id(layer) in seen or isinstance(layer, tf.keras.layers.RNN) or hasattr(layer, "state_size"):
            continue
        seen.add(id(layer))
        places.append(LocatedLayer(layer, (*path, layer.name), before))
        if isinstance(model, tf.keras.Sequential):
            before = layer
        if isinstance(layer, tf.keras.layers.Layer):
            places += walk(layer, (*path, layer.name), seen)
    return places


def _children(layer: Any) -> list[Any]:
    """The sub-layers, and in a functional model the operations. What a layer carries as its activation is its own."""
    own = {id(getattr(layer, name, None)) for name in ("activation", "function")}  # the second is a Lambda's
    operations = list(getattr(layer, "operations", []))  # Keras 3, functional: layers and operations in order
    tracked = list(layer._flatten_layers(recursive=False, include_self=False))
    known = {id(operation) for operation in operations}
    return [child for child in operations + [t for t in tracked if id(t) not in known] if id(child) not in own]


def sources_of(place: LocatedLayer) -> list[Any]:
    """The layers whose outputs this one is called on, as far as the structure shows them."""
    if place.before is not None:
        return [_last(place.before)]
    return [source for node in inbound(place.layer) for source in node]


def inbound(layer: Any) -> list[list[Any]]:
    """For each call of the layer in a functional graph, the layers or operations that its inputs come from."""
    return [
        [_producer(t) for t in _tensors(node)] for node in getattr(layer, "_inbound_nodes", []) if not node.is_input
    ]


def _tensors(node: Any) -> list[Any]:
    tensors = [t for t in tf.nest.flatten(node.input_tensors) if hasattr(t, "_keras_history")]
    return tensors


def _producer(tensor: Any) -> Any:
    history = tensor._keras_history
    layer = history.operation if hasattr(history, "operation") else history.layer
    return _last(layer, history.tensor_index)


def _last(layer: Any, index: int = 0) -> Any:
    """The layer itself, or the one that makes the output of a nested model."""
    if isinstance(layer, tf.keras.Model):
        if isinstance(layer, tf.keras.Sequential) and layer.layers:
            return _last(layer.layers[-1])
        if getattr(layer, "operations", None) or hasattr(layer, "_nested_outputs"):
            return _producer(tf.nest.flatten(layer.outputs)[index])
    return layer


class VisibleLayer(NamedTuple):
    """A layer or operation, and whether everything around it is seen: only functional and Sequential models hold it."""

    layer: Any
    visible: bool


def visible_layers(model: Any, visible: bool = True) -> list[VisibleLayer]:
    """All that is called below `model`, apart from functional and Sequential models, which only pass on."""
    visible = visible and _only_passes_on(model)
    found: dict[int, VisibleLayer] = {}
    for child in _children(model):
        own = [] if _only_passes_on(child) else [VisibleLayer(child, visible)]
        inner = isinstance(child, tf.keras.layers.Layer) and not isinstance(child, tf.keras.layers.RNN)
        for part in own + (visible_layers(child, visible) if inner else []):
            seen = found.get(id(part.layer), part).visible and part.visible  # a layer can be shared
            found[id(part.layer)] = VisibleLayer(part.layer, seen)
    return list(found.values())


def _only_passes_on(layer: Any) -> bool:
    module = getattr(type(layer).call, "__module__", "") if isinstance(layer, tf.keras.Model) else ""
    return module.startswith(("keras.", "tf_keras.")) and module.endswith((".functional", ".sequential"))


def output_activation(layer: Any) -> Any:
    """The activation that a layer of Keras ends in, as a function of one tensor; None where there is none to see."""
    carries = callable(getattr(layer, "activation", None)) and _any_in(_keras_modules(layer), _ENDS_IN_ACTIVATION)
    if carries and _own(type(layer).call):  # a call of the user's, such as `-super().call(x)`, may end in anything
        return _as_function(layer.activation)
    return _as_function(layer) if only_activates(layer) else None


def only_activates(layer: Any) -> bool:
    """An activation layer, or an operation of a functional graph: no weights, a function of its input alone."""
    return not isinstance(layer, tf.keras.layers.Layer) or _any_in(_keras_modules(layer), _IS_ACTIVATION)


def keras_class(layer: Any) -> str:
    """The name of the layer's class where it is Keras's own, "" where it is anybody else's or a subclass."""
    return type(layer).__name__ if _own(type(layer)) else ""


def _own(defined: Any) -> bool:
    """Whether a class or function is Keras's own."""
    return str(getattr(defined, "__module__", "")).startswith(("keras.", "tf_keras."))


def has_running_loss(model: Any) -> bool:
    """Returns whether `logs["loss"]` is the mean of the epoch so far, as it is in Keras's own `train_step`."""
    return _own(type(model).train_step)


def compilation(model: Any) -> Any:
    """Another object after each `compile`, None before the first."""
    return getattr(model, "_compile_config", None)


def modes(model: Any) -> list[Any]:
    """What a user may change in a layer that is built, so that a step traced before runs another model."""
    return [
        (id(layer), id(getattr(layer, "activation", None)), getattr(layer, "quantization_mode", None), _has_lora(layer))
        for layer in (place.layer for place in walk(model))
    ]


def moving_variables(model: Any) -> list[Any]:
    """Those that a pass in inference may move: seeds, weights in which a layer of the user's counts its calls, and the state
    of a stateful RNN, which is no weight. Not what is trained or what Keras's own layers hold, which may be much."""
    layers = list(model._flatten_layers(include_self=False))
    leaves = [layer for layer in layers if keras_class(layer) and not _children(layer)]
    steady = {id(v) for v in [*model.trainable_weights, *(v for layer in leaves for v in layer.weights)]}
    states = [getattr(layer, "states", None) for layer in layers if getattr(layer, "stateful", False)]
    of_rnns = [v for v in tf.nest.flatten(states) if v is not None]
    return [v for v in model.variables if id(v) not in steady] + of_rnns


def _has_lora(layer: Any) -> bool:
    return bool(getattr(layer, "lora_enabled", False))


def _keras_modules(layer: Any) -> list[str]:
    return [c.__module__ for c in type(layer).__mro__ if _own(c)]


def _as_function(activation: Any) -> Any:
    """A layer is called without being built; what has weights (PReLU) is never evaluated."""
    if not hasattr(activation, "call"):
        return activation
    has_weights = getattr(activation, "variables", None) or type(activation).__name__ == "PReLU"
    return None if has_weights else activation.call


def _any_in(modules: list[str], parts: tuple[str, ...]) -> bool:
    return any(part in module + "." for module in modules for part in parts)
