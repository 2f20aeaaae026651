"""What do a layer's weights say? Whether it is frozen, and where a NaN is."""

from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.structure.keras_layers import inbound


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
    for value in _nearest_weights(layer):
        ends = [
            k
            for k in (1, 2)
            if value.dtype.is_floating and np.prod(value.shape[-k:]) == neurons and value.shape.rank >= k
        ]
        if ends:
            found = tf.reduce_any(tf.math.is_nan(value), list(range(value.shape.rank - ends[0])))
            mask |= np.reshape(found, -1)
    return mask


def _nearest_weights(layer: Any) -> list[Any]:
    """Its own, or of a layer that has none, such as an activation, those of the layers before it, as far as they show."""
    found: list[Any] = []
    seen, todo = set(), [layer]
    while todo:
        current = todo.pop()
        if id(current) not in seen:
            seen.add(id(current))
            weights = getattr(current, "weights", [])
            found += [_neurons_last(current, tf.convert_to_tensor(weight)) for weight in weights]
            todo += [] if weights else [source for node in inbound(current) for source in node]
    return found


def _neurons_last(layer: Any, value: Any) -> Any:
    """The kernel of a transposed convolution ends in its inputs."""
    kinds = tuple(getattr(tf.keras.layers, f"Conv{n}DTranspose") for n in (1, 2, 3))
    return tf.linalg.matrix_transpose(value) if isinstance(layer, kinds) and value.shape.rank > 1 else value
