"""The layers of a Keras model: how they nest, which layer feeds which, and which activation a layer ends in.

The attributes with a leading underscore are private names of Keras; `tests/upstream/test_keras_names.py` pins each.
"""

import inspect
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import tensorflow as tf

# Modules of Keras's layers that end in the activation they carry. The names of a custom layer's attributes mean nothing.
_ENDS_IN_ACTIVATION = (".layers.core.", ".layers.convolutional.", ".layers.activation")
_HOLDS_FUNCTION = (".layers.core.lambda", ".layers.core.tf_op_layer")
_IS_ACTIVATION = (".layers.activation", ".layers.core.activation", *_HOLDS_FUNCTION)


@dataclass(frozen=True)
class LocatedLayer:
    """A layer and its place in the model.

    Args:
        layer: a layer, or an operation of a functional graph.
        path: the names from below the outermost model down to the layer's own.
        previous: the layer before it in a `Sequential`, which is known even if the model is not built; None elsewhere.
        parent: the layer or model that holds it.
    """

    layer: Any
    path: tuple[str, ...]
    previous: Any
    parent: Any


class VisibleLayer(NamedTuple):
    """A layer or operation, and whether all code around its calls is known: only functional and Sequential models hold it."""

    layer: Any
    visible: bool


def locate_layers(model: Any, path: tuple[str, ...] = (), seen: set[int] | None = None) -> list[LocatedLayer]:
    """Returns all layers and operations below `model`, outer ones first, each once. RNN layers are left out."""
    seen = {id(model)} if seen is None else seen
    located: list[LocatedLayer] = []
    previous: Any = None
    for layer in child_layers(model):
        before, previous = previous, layer if isinstance(model, tf.keras.Sequential) else None
        if id(layer) in seen or isinstance(layer, tf.keras.layers.RNN):
            continue
        seen.add(id(layer))
        located.append(LocatedLayer(layer, (*path, layer.name), before, model))
        if isinstance(layer, tf.keras.layers.Layer):
            located += locate_layers(layer, (*path, layer.name), seen)
    return located


def visible_layers(model: Any, visible: bool = True) -> list[VisibleLayer]:
    """Returns all layers and operations below `model`, apart from functional and Sequential models, which compute nothing."""
    visible = visible and _is_functional(model)
    found: dict[int, VisibleLayer] = {}
    for child in child_layers(model):
        itself = [] if _is_functional(child) else [VisibleLayer(child, visible)]
        has_inner = isinstance(child, tf.keras.layers.Layer) and not isinstance(child, tf.keras.layers.RNN)
        for entry in itself + (visible_layers(child, visible) if has_inner else []):
            key = id(entry.layer)
            # A layer that two models share is visible only if both are.
            found[key] = VisibleLayer(entry.layer, entry.visible and found.get(key, entry).visible)
    return list(found.values())


def predecessors(located: LocatedLayer) -> list[Any]:
    """Returns the layers whose outputs this layer is called on, as far as the structure shows them."""
    return inbound_layers(located.layer) if located.previous is None else [_output_layer(located.previous)]


def inbound_layers(layer: Any) -> list[Any]:
    """Returns the layers or operations that the inputs of the layer's calls in a functional graph come from."""
    nodes = [node for node in getattr(layer, "_inbound_nodes", []) if not node.is_input]
    tensors = [tensor for node in nodes for tensor in tf.nest.flatten(node.input_tensors)]
    return [_producer(tensor) for tensor in tensors if hasattr(tensor, "_keras_history")]


def output_activation(layer: Any) -> Any:
    """Returns the activation that a layer ends in: a function, an activation layer or an operation; None if it shows none."""
    # A `call` that the user wrote, such as `-super().call(x)`, may end in anything.
    if not runs_keras_call(layer):
        return None
    kind: Any = type(layer)
    if _ends_in_activation(kind):
        return vars(layer).get("activation")
    return layer if is_activation_layer(layer) else None


def held_function(layer: Any) -> Any:
    """Returns the function that an activation layer of Keras applies; None if it has its own, as `ReLU` has."""
    if isinstance(layer, tf.keras.layers.Activation):
        return vars(layer).get("activation")
    if not _any_in(_keras_modules(layer), _HOLDS_FUNCTION):
        return None
    arguments = vars(layer).get("arguments")  # of a Lambda
    return partial(layer.function, **arguments) if arguments else layer.function


def is_activation_layer(layer: Any) -> bool:
    """Whether this is an activation layer or an operation of a functional graph: a function of its input, without weights."""
    return not isinstance(layer, tf.keras.layers.Layer) or _any_in(_keras_modules(layer), _IS_ACTIVATION)


def keras_class(layer: Any) -> str:
    """Returns the name of the layer's class if Keras defines it, "" for a class of the user's, subclasses included."""
    return type(layer).__name__ if is_defined_by_keras(type(layer)) else ""


def input_casts(model: Any) -> list[tuple[Any, str]]:
    """Returns the methods that cast the inputs of the model and of its layers to their types: each with the object that has it.

    Floats are cast to the type of a layer: in Keras 3 by a method of the policy, which layers share; in tf_keras of the layer.
    Integers, such as the pixels of images, are cast by a functional model, one tensor by one in tf_keras.
    """
    owners: list[tuple[Any, tuple[str, ...]]] = [(layer, ("_maybe_cast_inputs",)) for layer, _ in visible_layers(model)]
    owners += [(getattr(layer, "dtype_policy", None), ("convert_input",)) for layer, _ in visible_layers(model)]
    models = [model, *(each.layer for each in locate_layers(model))]
    # In Keras 3 a Sequential model holds a functional one.
    models = [getattr(each, "_functional", None) or each for each in models if holds_all_calls(each)]
    owners += [(each, ("_convert_inputs_to_tensors", "_conform_to_reference_input")) for each in models]
    found = {(id(owner), method): (owner, method) for owner, methods in owners for method in methods}
    return [(owner, method) for owner, method in found.values() if hasattr(owner, method)]


def is_defined_by_keras(definition: Any) -> bool:
    """Whether a class or function is defined in Keras 3 or tf_keras."""
    return str(getattr(definition, "__module__", "")).startswith(("keras.", "tf_keras."))


def parts_of_uncallable(model: Any) -> list[str]:
    """Returns the attributes that hold a model's parts, if only a training step of its own calls them; [] if it has a `call`.

    A GAN is often written so: its `train_step` calls a generator and a discriminator.
    """
    if type(model).call is not tf.keras.Model.call:
        return []
    models = [
        name for name, part in vars(model).items() if isinstance(part, tf.keras.Model) and not name.startswith("_")
    ]
    layers = [name for name, part in vars(model).items() if isinstance(part, tf.keras.layers.Layer)]
    return models or [name for name in layers if not name.startswith("_")]


def logits_of(output: Any) -> Any:
    """Returns the logits of a model's output: the tensor from which Keras computes a crossentropy of it; None if it has none.

    Keras marks the probabilities that it makes, and looks for the operation that made them.
    """
    op = getattr(output, "op", None)  # eager tensors have none
    made = op.inputs[0] if op is not None and op.type in ("Softmax", "Sigmoid") else None
    return getattr(output, "_keras_logits", made)


def keras_property(layer: Any, name: str) -> Any:
    """Returns a property that a class of Keras defines; None if there is none, or a class of the user's has another."""
    owner = next((c for c in type(layer).__mro__ if name in vars(c)), None)
    return getattr(layer, name) if is_defined_by_keras(owner) else None


def runs_keras_call(layer: Any) -> bool:
    """Whether a layer's `call` is one of Keras's layers', not one that the user wrote, which may do anything."""
    return is_defined_by_keras(type(layer).call)


def holds_all_calls(model: Any) -> bool:
    """Whether the structure of a model shows all calls of its layers: that of a functional or Sequential model does."""
    return _is_functional(model)


def has_running_loss(model: Any) -> bool:
    """Returns whether `logs["loss"]` is the mean of the epoch so far, as it is in Keras's own `train_step`."""
    return is_defined_by_keras(type(model).train_step)


def child_layers(layer: Any) -> list[Any]:
    """The sub-layers, and the operations of a functional model. The activation that a layer of Keras ends in is no sub-layer."""
    ends_in = (held_function(layer), output_activation(layer))
    held = [each for each in ends_in if isinstance(each, tf.keras.layers.Layer) and each is not layer]
    carried = [id(each) for each in held if output_activation(each) is each]
    carried += [id(each) for each in cell_activations(layer).values()]
    operations = list(keras_property(layer, "operations") or [])  # Keras 3, functional: layers and operations in order
    tracked = layer._flatten_layers(recursive=False, include_self=False)
    found = {id(child): child for child in (*operations, *tracked, *held)}  # tf_keras does not track a Lambda's model
    return [child for key, child in found.items() if key not in carried]


def is_cell(layer: Any) -> bool:
    """Whether this is a cell of Keras's, or several stacked, which an RNN layer or a loop of the user's calls at each time step."""
    return runs_keras_call(layer) and hasattr(layer, "state_size") and not isinstance(layer, tf.keras.layers.RNN)


def cell_activations(layer: Any) -> dict[str, Any]:
    """Returns the activations that a cell of Keras's applies in its call, by the names of its attributes; {} for another layer."""
    names = ("activation", "recurrent_activation") if is_cell(layer) else ()
    return {name: function for name in names if (function := vars(layer).get(name)) is not None}


def symbolic_inputs(model: Any) -> list[Any]:
    """Returns the symbolic inputs of a model; none of a subclassed one. Keras 3.3 raises for a `Sequential` that has none."""
    try:
        return list(tf.nest.flatten(model.inputs or []))
    except (AttributeError, ValueError):
        return []


def _producer(tensor: Any) -> Any:
    """The layer or operation that made a symbolic tensor."""
    history = tensor._keras_history
    layer = history.operation if hasattr(history, "operation") else history.layer
    return _output_layer(layer, history.tensor_index)


def _output_layer(layer: Any, index: int = 0) -> Any:
    """The layer itself; for a nested model, the layer inside that makes its output number `index`."""
    if isinstance(layer, tf.keras.Model):
        if isinstance(layer, tf.keras.Sequential) and layer.layers:
            return _output_layer(layer.layers[-1])
        if keras_property(layer, "operations") or hasattr(layer, "_nested_outputs"):
            return _producer(tf.nest.flatten(layer.outputs)[index])
    return layer


def _is_functional(layer: Any) -> bool:
    """Whether the layer is a functional or Sequential model whose `call` is Keras's own."""
    call = type(layer).call if isinstance(layer, tf.keras.Model) else None
    return is_defined_by_keras(call) and call.__module__.endswith((".functional", ".sequential"))


def _keras_modules(layer: Any) -> list[str]:
    return [c.__module__ for c in type(layer).__mro__ if is_defined_by_keras(c)]


@cache
def _ends_in_activation(kind: Any) -> bool:
    """Whether a class of Keras, or a subclass of one, ends in the activation that its constructor takes."""
    bases = [c for c in kind.__mro__ if is_defined_by_keras(c) and _any_in([c.__module__], _ENDS_IN_ACTIVATION)]
    takes = any("activation" in inspect.signature(c).parameters for c in bases)
    return takes and not issubclass(kind, tf.keras.layers.Activation)


def _any_in(modules: list[str], parts: tuple[str, ...]) -> bool:
    return any(part in module + "." for module in modules for part in parts)
