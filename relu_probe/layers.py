"""Which layers end in a ReLU, and what are they called? The only file that knows Keras's structure and private names.

A ReLU is recognised by what it does, not by its name: the activation is evaluated on a few points. Zero on all negative
ones and positive for large ones is a hard ReLU.
"""

import sys
import warnings
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.names import matching

_NEGATIVE = (-1.0, -1e-3, -1e4, -0.1, -1e-6, -1e-20, -0.5, -3.0, -100.0)  # most functions fail at the first
_POSITIVE = (1e-3, 0.1, 0.5, 1.0, 3.0, 100.0)
_LARGE = (1e4, 1e6)

# Layers that end in the `activation` they carry. A custom layer with an attribute of that name may end in anything.
_ENDS_IN_ACTIVATION = (".layers.core.", ".layers.convolutional.", ".layers.activation")
_IS_ACTIVATION = (".layers.activation", ".layers.core.activation", ".layers.core.lambda", ".layers.core.tf_op_layer")


@dataclass(frozen=True)
class ReluLayer:
    """A layer (or, in a functional graph, an operation) whose output is a ReLU's.

    Args:
        key: its name in reports, tags and `layers=`.
        ref: weak, so that what is kept for a model does not keep the model alive.
        axis: of the neurons in the output, -1, or 1 where the channels come first.
        ceiling: the value at which the activation is bounded, None where it is not.
        threshold: the largest pre-activation at which it is zero.
    """

    key: str
    ref: Any
    axis: int
    ceiling: float | None
    threshold: float = 0.0

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
    placed = _without_repeats([place for place in _walk(model) if _activation(place.layer) is not None])
    if not placed:
        raise ValueError(_no_relu(model))
    keys = _keys([place.path for place in placed])
    return [
        ReluLayer(key, weakref.ref(p.layer), _neuron_axis(p), relu_ceiling(function), relu_threshold(function))
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
        hits = [r for r in found if r.key in keys]
    else:
        hits = [r for r in found if r.layer is item]
    if not hits:
        name = item if isinstance(item, str) else getattr(item, "name", item)
        known = any(place.layer is item or place.path[-1] == item for place in _walk(model))
        why = "is a layer of the model but no ReLU that is counted" if known else "matches no layer of the model"
        raise ValueError(f"layers={name!r} {why}; {_expected(found)}")
    return hits


def _expected(found: list[ReluLayer]) -> str:
    return f"expected names, globs or layer objects from {', '.join(r.key for r in found)}."


# --- the walk ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    layer: Any
    path: tuple[str, ...]
    before: Any  # the layer before it in a Sequential, which knows it even when unbuilt


def _walk(model: Any, path: tuple[str, ...] = (), seen: set[int] | None = None) -> list[_Place]:
    """All layers and operations below `model`, outer ones first, each once, RNN layers and cells left out."""
    seen = {id(model)} if seen is None else seen
    places, before = [], None
    for layer in _children(model):
        if id(layer) in seen or isinstance(layer, tf.keras.layers.RNN) or hasattr(layer, "state_size"):
            continue
        seen.add(id(layer))
        places.append(_Place(layer, (*path, layer.name), before))
        if isinstance(model, tf.keras.Sequential):
            before = layer
        if isinstance(layer, tf.keras.layers.Layer):
            places += _walk(layer, (*path, layer.name), seen)
    return places


def _children(layer: Any) -> list[Any]:
    """The sub-layers, and in a functional model the operations. What a layer carries as its activation is its own."""
    own = {id(getattr(layer, name, None)) for name in ("activation", "function")}  # the second is a Lambda's
    operations = list(getattr(layer, "operations", []))  # Keras 3, functional: layers and operations in order
    tracked = list(layer._flatten_layers(recursive=False, include_self=False))
    known = {id(operation) for operation in operations}
    return [child for child in operations + [t for t in tracked if id(t) not in known] if id(child) not in own]


def _without_repeats(places: list[_Place]) -> list[_Place]:
    """A ReLU directly behind a counted ReLU counts the same neurons once more: left out."""
    counted: set[int] = set()
    kept = []
    for place in places:
        sources = _sources(place) if _only_activates(place.layer) else []
        repeats = bool(sources) and all(id(source) in counted for source in sources)
        counted.add(id(place.layer))
        if not repeats:
            kept.append(place)
    return kept


def _sources(place: _Place) -> list[Any]:
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


class Part(NamedTuple):
    """A layer or operation, and whether everything around it is seen: only functional and Sequential models hold it."""

    layer: Any
    visible: bool


def parts(model: Any, visible: bool = True) -> list[Part]:
    """All that is called below `model`, apart from functional and Sequential models, which only pass on."""
    visible = visible and _only_passes_on(model)
    found: dict[int, Part] = {}
    for child in _children(model):
        own = [] if _only_passes_on(child) else [Part(child, visible)]
        inner = isinstance(child, tf.keras.layers.Layer) and not isinstance(child, tf.keras.layers.RNN)
        for part in own + (parts(child, visible) if inner else []):
            seen = found.get(id(part.layer), part).visible and part.visible  # a layer can be shared
            found[id(part.layer)] = Part(part.layer, seen)
    return list(found.values())


def _only_passes_on(layer: Any) -> bool:
    module = getattr(type(layer).call, "__module__", "") if isinstance(layer, tf.keras.Model) else ""
    return module.startswith(("keras.", "tf_keras.")) and module.endswith((".functional", ".sequential"))


def keras_class(layer: Any) -> str:
    """The name of the layer's class where it is Keras's own, "" where it is anybody else's or a subclass."""
    return type(layer).__name__ if type(layer).__module__.startswith(("keras.", "tf_keras.")) else ""


def is_frozen(layer: Any, model: Any = None) -> bool:
    """Neither the layer nor anything visible before it has a weight that training changes.

    With `model`, the outermost one, only what is certain: what comes before the input of a nested model is not visible.
    """
    entries = {id(t) for t in _entries(model)}
    seen, todo = set(), [layer]
    while todo:
        current = todo.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        sources = [source for node in inbound(current) for source in node]
        if getattr(current, "trainable_weights", []) or (
            model is not None and not sources and not _enters(current, entries)
        ):
            return False
        todo += sources
    return True


def _entries(model: Any) -> list[Any]:
    """The symbolic inputs of a model; of a `Sequential` that has none Keras 3.3 raises."""
    try:
        return list(tf.nest.flatten(model.inputs or []))
    except (AttributeError, ValueError):
        return []


def _enters(layer: Any, entries: set[int]) -> bool:
    """Whether it is an input layer of the outermost model."""
    outputs = tf.nest.flatten(getattr(layer, "output", [])) if isinstance(layer, tf.keras.layers.InputLayer) else []
    return any(id(tensor) in entries for tensor in outputs)


def nan_weights(layer: Any, neurons: int) -> Any:
    """`(neurons,)` bool: a NaN among the neuron's own weights, the last axis or, depthwise, the last two."""
    mask = np.zeros(neurons, bool)
    for weight in getattr(layer, "weights", []):
        value = tf.convert_to_tensor(weight)
        ends = [
            k
            for k in (1, 2)
            if value.dtype.is_floating and np.prod(value.shape[-k:]) == neurons and value.shape.rank >= k
        ]
        if ends:
            found = tf.reduce_any(tf.math.is_nan(value), list(range(value.shape.rank - ends[0])))
            mask |= np.reshape(found, -1)
    return mask


# --- names ------------------------------------------------------------------------------------------------------------


def _keys(paths: list[tuple[str, ...]]) -> list[str]:
    """`layer.name` where unique, else the names joined by `/`, with `_1`, `_2` for clashes that remain."""
    counts = Counter(path[-1] for path in paths)
    wanted = [path[-1] if counts[path[-1]] == 1 else "/".join(path) for path in paths]
    taken: set[str] = set()
    keys = []
    for key in wanted:
        free = (
            name
            for i in range(len(paths) + 1)
            if (name := f"{key}_{i}" if i else key) not in taken and (not i or name not in wanted)
        )
        keys.append(next(free, f"{key}_{len(taken)}"))
        taken.add(keys[-1])
    return keys


# --- recognition ------------------------------------------------------------------------------------------------------


def _activation(layer: Any) -> Any:
    """The function that ends the layer where it is a hard ReLU, else None."""
    function = ending(layer)
    return function if function is not None and is_relu(function) else None


def ending(layer: Any) -> Any:
    """The activation that a layer of Keras ends in, as a function of one tensor; None where there is none to see."""
    if callable(getattr(layer, "activation", None)) and _any_in(_keras_modules(layer), _ENDS_IN_ACTIVATION):
        return _as_function(layer.activation)
    return _as_function(layer) if _only_activates(layer) else None


def _only_activates(layer: Any) -> bool:
    """An activation layer, or an operation of a functional graph: no weights, a function of its input alone."""
    return not isinstance(layer, tf.keras.layers.Layer) or _any_in(_keras_modules(layer), _IS_ACTIVATION)


def _keras_modules(layer: Any) -> list[str]:
    return [c.__module__ for c in type(layer).__mro__ if c.__module__.startswith(("keras.", "tf_keras."))]


def _as_function(activation: Any) -> Any:
    """A layer is called without being built; what has weights (PReLU) is never evaluated."""
    if not hasattr(activation, "call"):
        return activation
    has_weights = getattr(activation, "variables", None) or type(activation).__name__ == "PReLU"
    return None if has_weights else activation.call


_known: list[Any] = []  # functions of Keras's and TensorFlow's own that are ReLUs: 17 evaluations cost milliseconds


def is_relu(function: Any) -> bool:
    """Zero on all negative points, never negative, positive for large ones."""
    if any(function is known for known in _known):
        return True
    found = _looks_like_relu(function)
    if found and _never_changes(function):
        _known.append(function)
    return found


def _never_changes(function: Any) -> bool:
    """At module level in Keras or TensorFlow; a lambda, a method, a function of the user's can do else tomorrow."""
    module = str(getattr(function, "__module__", ""))
    own = module.startswith(("keras.", "tf_keras.", "tensorflow."))
    return own and getattr(sys.modules.get(module), str(getattr(function, "__name__", "")), None) is function


def _looks_like_relu(function: Any) -> bool:
    return (
        all(_value(function, point) == 0 for point in _NEGATIVE)
        and all(_value(function, point) >= 0 for point in _POSITIVE)
        and all(_value(function, point) > 0 for point in _LARGE)
    )


def relu_ceiling(function: Any) -> float | None:
    """The bound c of a bounded ReLU (ReLU6): f(1e4) == f(1e6) == c."""
    low, high = (_value(function, point) for point in _LARGE)
    return low if low == high and np.isfinite(low) else None


def relu_threshold(function: Any) -> float:
    """The largest float32 at which the ReLU is zero: 0, or the `threshold` of a ReLU that has one."""
    low, high = np.float32(0), np.float32(_LARGE[0])
    if _value(function, 1e-6) > 0:
        return 0.0
    while (middle := np.float32((low + high) / 2)) not in (low, high):
        low, high = (low, middle) if _value(function, float(middle)) > 0 else (middle, high)
    return float(low)


def _value(function: Any, point: float) -> float:
    """f(point), evaluated alone as a `(1, 1)` tensor (softmax over several looks like a ReLU); nan if it cannot be."""
    try:
        with tf.init_scope(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of a softmax over one value
            value = np.asarray(function(tf.constant([[point]], tf.float32)))
        return float(value[0, 0]) if value.shape == (1, 1) else float("nan")
    except Exception:
        return float("nan")


def _any_in(modules: list[str], parts: tuple[str, ...]) -> bool:
    return any(part in module + "." for module in modules for part in parts)


# --- the axis of the neurons ------------------------------------------------------------------------------------------


def _neuron_axis(place: _Place) -> int:
    """1 for a `channels_first` layer with its own activation, or a ReLU layer that one feeds; else the last."""
    sources, layer = _sources(place), place.layer
    for _ in range(32):  # back through what keeps the axes: BatchNormalization, pooling, Dropout
        if data_format := getattr(layer, "data_format", None):
            return 1 if data_format == "channels_first" and "Flatten" not in type(layer).__name__ else -1
        if not sources or type(layer).__name__ in ("Dense", "EinsumDense", "Reshape", "Permute"):
            return -1
        layer = sources[0]
        sources = [source for node in inbound(layer) for source in node]
    return -1


# --- words ------------------------------------------------------------------------------------------------------------


def _no_relu(model: Any) -> str:
    places = [place for place in _walk(model) if not isinstance(place.layer, tf.keras.layers.InputLayer)]
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
