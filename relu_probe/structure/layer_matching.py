"""Selection of ReLU layers by name, glob or object: the argument `layers=`."""

import weakref
from typing import Any

from relu_probe.structure.call_owners import possible_keys
from relu_probe.structure.keras_layers import locate_layers
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.utils.foreign_text import shown_names
from relu_probe.utils.layer_names import matching


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
