"""The weights at and before a layer: whether training changes one of them, and which neurons have a NaN in theirs."""

from functools import cache
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.structure.call_owners import recurrent_layers
from relu_probe.structure.keras_layers import inbound_layers, locate_layers, symbolic_inputs


def is_frozen(layer: Any, model: Any = None) -> bool:
    """Whether neither the layer nor any layer visible before it has a weight that training changes.

    Args:
        layer: a layer or operation.
        model: the outermost model. With it the answer is True only if that is certain: the layers before the input of a
            nested model are not visible.
    """
    entries = {id(tensor) for tensor in symbolic_inputs(model)}
    seen, todo = set(), [layer]
    while todo:
        current = todo.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        before = inbound_layers(current) or _before_cell(current, model)
        if getattr(current, "trainable_weights", []):
            return False
        if model is not None and not before and not _is_input(current, entries):
            return False
        todo += before
    return model is None or not _has_own_weights(model)


def _before_cell(cell: Any, model: Any) -> list[Any]:
    """The layers before the cell of an RNN layer: earlier cells, or those before the RNN layer; [] if it is no cell of the model."""
    for rnn in [] if model is None else recurrent_layers(model):
        cells = getattr(rnn.cell, "cells", [rnn.cell])
        if (place := next((i for i, each in enumerate(cells) if each is cell), None)) is not None:
            return [*cells[:place], *inbound_layers(rnn)]
    return []


def _has_own_weights(model: Any) -> bool:
    """Whether training changes a weight that belongs to no layer of the model, such as a prompt, and may stand before any layer."""
    layers = [*(each.layer for each in locate_layers(model)), *recurrent_layers(model)]
    known = {id(weight) for layer in layers for weight in getattr(layer, "weights", [])}
    return any(id(weight) not in known for weight in model.trainable_weights)


def is_frozen_in(model: Any, layer: Any) -> bool:
    """Whether training computes no gradient for the layer, because nothing that it changes stands at or before it.

    Where the model hides what comes before a layer, the layer is frozen only if some layer of the model was frozen at all.
    """
    layers = [*(each.layer for each in locate_layers(model)), *recurrent_layers(model)]
    hidden = any(getattr(each, "trainable", True) is False for each in layers)
    return is_frozen(layer, model) or (is_frozen(layer) and hidden)


def nan_weights(layer: Any, neurons: int) -> Any:
    """Returns `(neurons,)` bool: whether a weight of the neuron is NaN.

    A layer without weights, such as an activation, has the weights of the layers before it. The neurons are the last axis
    of a weight, of a depthwise kernel the last two.
    """
    mask = np.zeros(neurons, bool)
    for value in _nearest_weights(layer):
        rank = value.ndim
        axes = [k for k in (1, 2) if k <= rank and prod(value.shape[-k:]) == neurons]
        if axes and _is_floating(value) and (is_nan := np.isnan(value)).any():
            mask |= np.reshape(is_nan.any(axis=tuple(range(rank - axes[0]))), -1)
    return mask


def _is_input(layer: Any, inputs: set[int]) -> bool:
    """Whether this is an input layer of the outermost model."""
    outputs = tf.nest.flatten(getattr(layer, "output", [])) if isinstance(layer, tf.keras.layers.InputLayer) else []
    return any(id(tensor) in inputs for tensor in outputs)


def _nearest_weights(layer: Any) -> list[Any]:
    """The layer's own weights; if it has none, the weights of the layers before it, as far as they are visible."""
    found: list[Any] = []
    seen, todo = set(), [layer]
    while todo:
        current = todo.pop()
        if id(current) not in seen:
            seen.add(id(current))
            weights = getattr(current, "weights", [])
            found += [_neurons_last(current, _values(weight)) for weight in weights]
            todo += [] if weights else inbound_layers(current)
    return found


def _values(weight: Any) -> Any:
    """A view of TensorFlow's memory on a CPU: operations on the weights of each layer would take longer than the epoch.

    `tf.convert_to_tensor` takes twice as long as the variable's own method.
    """
    variable = weight if isinstance(weight, tf.Variable) else weight.value  # Keras 3 wraps it
    return np.asarray(variable.value())


def _neurons_last(layer: Any, value: Any) -> Any:
    """The last two axes swapped for a transposed convolution, whose kernel ends in its inputs."""
    return np.swapaxes(value, -1, -2) if value.ndim > 1 and isinstance(layer, _transposed_convolutions()) else value


@cache
def _transposed_convolutions() -> tuple[type, ...]:
    """Kept: TensorFlow looks up `tf.keras.layers` anew each time, in every layer at the end of an epoch."""
    return tuple(getattr(tf.keras.layers, f"Conv{n}DTranspose") for n in (1, 2, 3))


def _is_floating(value: Any) -> bool:
    return bool(tf.as_dtype(value.dtype).is_floating)
