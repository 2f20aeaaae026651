"""Selection of ReLU layers by name, glob or object: the argument `layers=`."""

import weakref
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from relu_probe.structure.call_owners import CallOwner, call_owners
from relu_probe.structure.keras_layers import locate_layers, runs_keras_call
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.utils.foreign_text import shown_names
from relu_probe.utils.layer_names import matching

_MOST_FUNCTIONS = 100  # in one call, of those that `layers=` can name before they are found


def select_before_a_step(relus: list[ReluLayer], layers: Any, model: Any) -> list[str]:
    """Returns the keys that `layers=` selects of the ReLU layers, before a step has shown the ReLUs written as functions.

    Raises:
        ValueError: it cannot select any ReLU of the model.
    """
    if layers is None:
        return [relu.key for relu in relus]
    owners = [owner for owner in call_owners(model, []) if owner.has_functions]
    possible = [_function(owner, number) for owner in owners for number in range(_MOST_FUNCTIONS)]
    in_cells = [owner.key(0) for owner in owners if owner.in_cell and runs_keras_call(owner.layer)]
    functions = [owner.key(0) for owner in owners if owner.key(0) not in in_cells]
    expected = _expected([*(relu.key for relu in relus), *in_cells], functions)
    selected = _select([*relus, *possible], layers, model, expected)
    return [relu.key for relu in relus if relu.key in selected]


def select_layers(relus: list[ReluLayer], layers: Any, model: Any) -> list[str]:
    """Returns the keys that the argument `layers=` selects, in the order of the model.

    Args:
        relus: the counted layers of the model.
        layers: a name, glob or layer object, or several; None for all. An RNN layer stands for the ReLUs in its cells.
        model: the model.

    Raises:
        ValueError: one of them names no counted ReLU of the model.
    """
    if layers is None:
        return [relu.key for relu in relus]
    selected = _select(relus, layers, model, _expected(relu.key for relu in relus))
    return [relu.key for relu in relus if relu.key in selected]


def _function(owner: CallOwner, number: int) -> ReluLayer:
    key = owner.key(number)
    return ReluLayer(key, weakref.ref(owner.layer), -1, None, path=key)


def _select(relus: list[ReluLayer], layers: Any, model: Any, expected: str) -> set[str]:
    layers = layers if isinstance(layers, (list, tuple, set)) else [layers]
    selected = {relu.key for item in layers for relu in _matching(relus, item, model, expected)}
    if not selected:
        raise ValueError(f"layers={layers!r} asks for no layer; {expected}")
    return selected


def _matching(relus: list[ReluLayer], item: Any, model: Any, expected: str) -> list[ReluLayer]:
    if isinstance(item, str):
        keys = matching([r.key for r in relus], item)
        # A `*` also matches a slash: "dense*" must not mean all layers of a sub-model called "densenet".
        paths = matching([r.path for r in relus], item) if "/" in item and item not in keys else []
        hits = [r for r in relus if r.key in keys or r.path in paths]
    else:
        hits = [r for r in relus if r.layer is item]
    owners = [] if hits else [owner for owner in call_owners(model, [])[1:] if _is_named(owner, item)]
    hits = hits or _in_cells(relus, owners)
    if not hits:
        name = item if isinstance(item, str) else getattr(item, "name", item)
        known = owners or any(item in ("/".join(place.path), place.layer) for place in locate_layers(model))
        why = "is a layer of the model but no ReLU that is counted" if known else "matches no layer of the model"
        raise ValueError(f"layers={name!r} {why}; {expected}")
    return hits


def _is_named(owner: CallOwner, item: Any) -> bool:
    return owner.layer is item or (isinstance(item, str) and item in (owner.layer.name, owner.name))


def _in_cells(relus: list[ReluLayer], owners: list[CallOwner]) -> list[ReluLayer]:
    """Returns the ReLUs in the cells of those of these layers that are RNN layers, or that are cells themselves."""
    layers = tf.keras.layers
    named = [o.layer for o in owners if o.in_cell or isinstance(o.layer, (layers.RNN, layers.Bidirectional))]
    parts = {id(part) for layer in named for part in layer._flatten_layers()}
    return [relu for relu in relus if id(relu.layer) in parts]


def _expected(keys: Iterable[str], functions: Iterable[str] = ()) -> str:
    """Returns the end of a message: what `layers=` can name.

    Args:
        keys: the keys of ReLUs.
        functions: keys that ReLUs written as functions get, where there are any.
    """
    names, functions = shown_names(keys), list(functions)[:1]
    known = [f"names, globs or layer objects from {names}"] if names else []
    return (
        f"expected {', or '.join([*known, *(f'the name of a ReLU function, such as {name}' for name in functions)])}."
    )
