"""Which layers end in a ReLU, and what are they called?"""

import weakref
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from relu_probe.structure.keras_layers import (
    LocatedLayer,
    inbound,
    keras_class,
    only_activates,
    output_activation,
    sources_of,
    walk,
)
from relu_probe.structure.relu_function import is_relu, relu_ceiling, relu_threshold
from relu_probe.utils.layer_names import matching, unique

_OTHER_AXES = ("EinsumDense", "Reshape", "Permute", "Lambda", "Transpose", "Moveaxis", "Swapaxes", "Einsum")


@dataclass(frozen=True)
class ReluLayer:
    """A layer (or, in a functional graph, an operation) whose output is a ReLU's.

    Args:
        key: its name in reports, tags and `layers=`.
        ref: weak, so that what is kept for a model does not keep the model alive.
        axis: of the neurons in the output, -1, or 1 where the channels come first.
        ceiling: the value at which the activation is bounded, None where it is not.
        threshold: the largest pre-activation at which it is zero.
        path: the names from below the outermost model, joined by `/`; `layers=` may ask for it too.
    """

    key: str
    ref: Any
    axis: int
    ceiling: float | None
    threshold: float = 0.0
    path: str = ""

    @property
    def layer(self) -> Any:
        return self.ref()

    def width(self) -> int:
        """The neurons of a layer that was never called, 0 where they are not known."""
        try:
            return int(self.layer.output.shape[self.axis])
        except Exception:
            return int(getattr(self.layer, "units", None) or getattr(self.layer, "filters", None) or 0)


def find_relus(model: Any) -> list[ReluLayer]:
    """The counted layers of `model`, in its order.

    Raises:
        ValueError: there is none.
    """
    placed = _without_repeats([place for place in walk(model) if _activation(place.layer) is not None])
    if not placed:
        raise ValueError(_no_relu(model))
    keys = unique([place.path for place in placed])
    return [
        ReluLayer(
            key,
            weakref.ref(p.layer),
            _neuron_axis(p),
            relu_ceiling(function),
            relu_threshold(function),
            "/".join(p.path),
        )
        for key, p in zip(keys, placed)
        if (function := _activation(p.layer)) is not None
    ]


def select(found: list[ReluLayer], wanted: Any, model: Any) -> list[str]:
    """The keys that `layers=` asks for: names, globs or layer objects.

    Raises:
        ValueError: one of them names no counted ReLU of the model.
    """
    if wanted is None:
        return [relu.key for relu in found]
    wanted = wanted if isinstance(wanted, (list, tuple, set)) else [wanted]
    chosen = [relu.key for item in wanted for relu in _matching(found, item, model)]
    if not chosen:
        raise ValueError(f"layers={wanted!r} asks for no layer; {_expected(found)}")
    return [relu.key for relu in found if relu.key in chosen]


def _matching(found: list[ReluLayer], item: Any, model: Any) -> list[ReluLayer]:
    if isinstance(item, str):
        keys = matching([r.key for r in found], item)
        # A `*` also matches a slash: "dense*" must not mean all layers of a sub-model called "densenet".
        paths = matching([r.path for r in found], item) if "/" in item and item not in keys else []
        hits = [r for r in found if r.key in keys or r.path in paths]
    else:
        hits = [r for r in found if r.layer is item]
    if not hits:
        name = item if isinstance(item, str) else getattr(item, "name", item)
        known = any(place.layer is item or item in (place.path[-1], "/".join(place.path)) for place in walk(model))
        why = "is a layer of the model but no ReLU that is counted" if known else "matches no layer of the model"
        raise ValueError(f"layers={name!r} {why}; {_expected(found)}")
    return hits


def _expected(found: list[ReluLayer]) -> str:
    return f"expected names, globs or layer objects from {', '.join(r.key for r in found)}."


def _without_repeats(places: list[LocatedLayer]) -> list[LocatedLayer]:
    """A ReLU directly behind a counted ReLU counts the same neurons once more: left out."""
    counted: set[int] = set()
    kept = []
    for place in places:
        behind = sources_of(place) if only_activates(place.layer) else []
        repeats = bool(behind) and all(id(source) in counted for source in behind)
        counted.add(id(place.layer))
        if not repeats:
            kept.append(place)
    return kept


def _activation(layer: Any) -> Any:
    """The function that ends the layer where it is a hard ReLU, else None."""
    function = output_activation(layer)
    return function if function is not None and is_relu(function) else None


def _neuron_axis(place: LocatedLayer) -> int:
    """1 for a `channels_first` layer with its own activation, or a ReLU layer that one feeds; else the last."""
    sources, layer = sources_of(place), place.layer
    for _ in range(32):  # back through what keeps the axes: BatchNormalization, pooling, Dropout
        if data_format := getattr(layer, "data_format", None):
            return 1 if data_format == "channels_first" and "Flatten" not in type(layer).__name__ else -1
        if not sources or isinstance(layer, tf.keras.layers.Dense) or keras_class(layer) in _OTHER_AXES:
            return -1
        layer = sources[0]
        sources = [source for node in inbound(layer) for source in node]
    return -1


def _no_relu(model: Any) -> str:
    places = [place for place in walk(model) if not isinstance(place.layer, tf.keras.layers.InputLayer)]
    looked = [f"{'/'.join(p.path)} ({type(p.layer).__name__}{_named_activation(p.layer)})" for p in places]
    soft = {name for p in places if (name := _named_activation(p.layer).strip(", ")) in ("sigmoid", "tanh")}
    hint = f" {' and '.join(sorted(soft))} units can saturate but not die." if soft else ""
    if not model.built:
        hint += " The model is not built: layers that it makes then can be seen once it was called on a batch."
    return (
        f"no ReLU found in model {model.name!r}; looked at {', '.join(looked) or 'no layers'}.{hint} Expected a layer that "
        "ends in a ReLU: a ReLU used as a plain function inside a subclassed call cannot be seen; write it as a layer of "
        'its own, keras.layers.ReLU(), or as Dense(n, activation="relu").'
    )


def _named_activation(layer: Any) -> str:
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return f", {name}" if name else ""
