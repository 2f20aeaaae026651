"""The layers whose calls are followed while a step is traced, and which of them may contain ReLUs written as functions."""

from typing import Any, NamedTuple

import tensorflow as tf

from relu_probe.structure.keras_layers import (
    cell_activations,
    child_layers,
    held_function,
    is_activation_layer,
    is_cell,
    is_defined_by_keras,
)
from relu_probe.structure.relu_function import is_relu
from relu_probe.utils.tensorflow_private import is_loop_or_branch

# Keras's functions that contain a ReLU but are none.
_OTHER_FUNCTIONS = ("hard_", "celu", "sparse", "log_", "soft", "threshold", "glu", "squareplus", "mish")
_SCRATCH = ("scratch_graph", "build_graph", "keras_graph")


class CallOwner(NamedTuple):
    """A layer or model whose calls are followed.

    Args:
        layer: the layer.
        relu: its `ReluLayer`; None if that is no ReLU's.
        prefix: the beginning of the keys of ReLUs written as functions in its call: "block/"; "" for the outermost model.
        has_functions: whether its call may contain ReLUs written as functions: it is of a class of the user's, holds a
            function of the user's, or is in a cell and ends in a ReLU.
        in_cell: whether it is the cell of an RNN layer, a cell that a loop of the user's calls, or part of one.
    """

    layer: Any
    relu: Any
    prefix: str
    has_functions: bool
    in_cell: bool

    @property
    def name(self) -> str:
        """Its own key."""
        return self.prefix.removesuffix("/") or str(self.layer.name)

    def key(self, number: int) -> str:
        """The key of a ReLU written as a function in its call, such as "block/relu_1"; `number` counts them from 0."""
        return f"{self.prefix}relu{f'_{number}' if number else ''}"


def call_owners(model: Any, relus: list[Any]) -> list[CallOwner]:
    """Returns the model and all layers and operations below it, also those inside of RNN layers; each before what it holds."""
    counted = {id(relu.layer): relu for relu in relus}
    owners = {id(model): CallOwner(model, None, "", has_functions(model), in_cell=False)}
    pending, names, ordered = [owners[id(model)]], {""}, []
    while pending:
        ordered.append(parent := pending.pop())
        found = []
        for layer in child_layers(parent.layer) if isinstance(parent.layer, tf.keras.layers.Layer) else ():
            if id(layer) not in owners:
                is_held = isinstance(parent.layer, tf.keras.layers.RNN)
                prefix = parent.prefix if is_held else _free(f"{parent.prefix}{layer.name}/", names)
                relu = counted.get(id(layer))
                in_cell = is_held or parent.in_cell or is_cell(layer)
                functions = relu is None and has_functions(layer, in_cell=in_cell)
                owner = CallOwner(layer, relu, prefix, functions, in_cell)
                owners[id(layer)] = owner
                found.append(owner)
        pending += reversed(found)
    return ordered


def recurrent_layers(model: Any) -> list[Any]:
    """Returns the RNN layers of a model."""
    return [owner.layer for owner in call_owners(model, []) if isinstance(owner.layer, tf.keras.layers.RNN)]


def may_have_functions(model: Any) -> bool:
    """Whether a traced step of the model may contain ReLUs that are no layers of their own."""
    return any(owner.has_functions for owner in call_owners(model, []))


def has_functions(layer: Any, *, in_cell: bool = False) -> bool:
    """Whether the call of a layer may contain ReLUs written as functions."""
    if not is_defined_by_keras(type(layer).call):
        return True
    if in_cell:
        held = layer if is_activation_layer(layer) else vars(layer).get("activation")
        return any(is_relu(function) for function in (held, *cell_activations(layer).values()))
    function = held_function(layer) or vars(layer).get("activation")
    is_function = callable(function) and not isinstance(function, tf.keras.layers.Layer)
    return is_function and not _is_library_function(function)


def _free(prefix: str, names: set[str]) -> str:
    """Adds the prefix, with a number if it is taken, and returns it."""
    base, number = prefix.removesuffix("/"), 0
    while prefix in names:
        number += 1
        prefix = f"{base}_{number}/"
    names.add(prefix)
    return prefix


def made_by_keras(frames: Any, *, in_cell: bool) -> bool:
    """Whether Keras made a ReLU operation inside of another function than a ReLU, such as hard_swish, or in a layer of its own.

    Layers that are made while a model is built are not known yet. Layers for activations alone are as good as a function.

    Args:
        frames: the stack at the operation, outermost first.
        in_cell: whether it is made in a cell, whose activations are counted.
    """
    names: set[str] = set()
    for frame in reversed(list(frames)):
        where = frame.filename.replace("\\", "/")
        if not any(part in where for part in ("/tensorflow/", "/keras/", "/tf_keras/")):
            break
        if "/tensorflow/python" not in where:
            if frame.name.startswith(_OTHER_FUNCTIONS):
                return True
            own_call = frame.name == "call" and "/layers/" in where and "/layers/activation" not in where
            names.add("layer" if own_call else frame.name)
    return not in_cell and {"layer", "__call__"} <= names


def is_scratch_graph(graph: Any) -> bool:
    """Whether Keras builds a model in this graph, or in the one that this is a loop or branch of; it never runs."""
    while graph is not None and not (found := any(part in str(getattr(graph, "name", "")) for part in _SCRATCH)):
        graph = graph.outer_graph if is_loop_or_branch(graph) else None
    return graph is not None and found


def _is_library_function(function: Any) -> bool:
    module = str(getattr(function, "__module__", ""))
    return is_defined_by_keras(function) or module.startswith("tensorflow.")
