"""The axes of the neurons in a layer's output, where the structure of the model proves them.

The neurons of a layer are its channels: the last axis, or axis 1 behind a layer with `channels_first`; for `EinsumDense` all axes that come
from its kernel.
"""

from typing import Any

import tensorflow as tf

from relu_probe.structure.keras_layers import LocatedLayer, holds_all_calls, keras_class, predecessors, runs_keras_call

# The axes of the neurons, counted from the end if negative; () if the structure does not show them.
Axes = tuple[int, ...]

_LAST: Axes = (-1,)
_MAKE_LAST_AXIS = (
    "Dense",
    "Embedding",
    "MultiHeadAttention",
    "GroupQueryAttention",
    "GroupedQueryAttention",
    "Flatten",
)
_MOVE_AXES = (
    "Lambda",
    "TFOpLambda",
    "SlicingOpLambda",
    "Transpose",
    "Moveaxis",
    "Swapaxes",
    "Einsum",
    "GetItem",
    "Squeeze",
)


class NeuronAxes:
    """The axes of the neurons in the outputs of a model's layers.

    Args:
        model: the outermost model.
        located: its layers, as `locate_layers` returns them.
    """

    def __init__(self, model: Any, located: list[LocatedLayer]) -> None:
        self._model = model
        self._located = {id(each.layer): each for each in located}
        self._known: dict[int, Axes] = {}

    def of_relu(self, relu: LocatedLayer, *, activation_layer: bool) -> Axes:
        """Returns the axes of a layer that ends in a ReLU; those before it, if it is an activation layer."""
        return self._before(relu.layer) if activation_layer else self._of(relu.layer)

    @property
    def otherwise(self) -> str:
        """What tells the axis where the structure does not: "convention", or "" if a layer of the model puts the channels elsewhere."""
        kinds = [getattr(each.layer, "data_format", None) == "channels_first" for each in self._located.values()]
        elsewhere = any(kinds) or any(
            isinstance(each.layer, tf.keras.layers.EinsumDense) and self._of(each.layer) != _LAST
            for each in self._located.values()
        )
        return "convention" if not elsewhere and tf.keras.backend.image_data_format() == "channels_last" else ""

    def _of(self, layer: Any) -> Axes:
        if id(layer) not in self._known:
            self._known[id(layer)] = ()  # a layer that is called on its own output shows nothing
            self._known[id(layer)] = self._find(layer)
        return self._known[id(layer)]

    def _find(self, layer: Any) -> Axes:
        if isinstance(layer, tf.keras.layers.InputLayer):
            return self._of_input(layer)
        if isinstance(layer, tf.keras.layers.Layer) and not runs_keras_call(layer):
            return ()
        if keras_class(layer) == "SpectralNormalization":
            return self._of(layer.layer)
        if keras_class(layer) == "TimeDistributed":
            return _LAST if self._of(layer.layer) == _LAST else ()
        own = _own_axes(layer)
        return _moved(layer, self._before(layer)) if own is None else own

    def _before(self, layer: Any) -> Axes:
        """Returns the axes of the layer's inputs, if all of them have the same."""
        located = self._located.get(id(layer))
        found = {self._of(each) for each in (predecessors(located) if located else [])}
        if not found and located is not None:
            return self._of_input(layer)
        return found.pop() if len(found) == 1 else ()

    def _of_input(self, layer: Any) -> Axes:
        """Returns the axes of the input of a model: of what it is called on, or the last of the outermost model's input."""
        located = self._located.get(id(layer))
        parent = self._model if located is None else located.parent
        if not holds_all_calls(parent):
            return ()
        if parent is self._model:
            return _LAST if tf.keras.backend.image_data_format() == "channels_last" else ()
        return self._before(parent)


def kernel_axes(equation: str) -> Axes:
    """Returns the axes of the output of an `EinsumDense` layer that come from its kernel.

    >>> kernel_axes("abc,cd->abd"), kernel_axes("abc,cde->abde"), kernel_axes("abc,cd->adb"), kernel_axes("...x,xy->...y")
    ((-1,), (-2, -1), (-2,), (-1,))
    """
    inputs, output = equation.replace(" ", "").replace("...", ".").split("->")
    kernel = inputs.split(",")[1]
    return tuple(i - len(output) for i, letter in enumerate(output) if letter in kernel and letter != ".")


def _own_axes(layer: Any) -> Axes | None:
    """Returns the axes that a layer itself makes; None for a layer that takes them from its input."""
    if isinstance(layer, tf.keras.layers.EinsumDense):
        return kernel_axes(layer.equation)
    if data_format := getattr(layer, "data_format", None):
        return _of_format(layer, data_format)
    makes_last = keras_class(layer) in _MAKE_LAST_AXIS or isinstance(
        layer, (tf.keras.layers.Dense, tf.keras.layers.RNN)
    )
    return _LAST if makes_last else () if keras_class(layer) in _MOVE_AXES else None


def _of_format(layer: Any, data_format: str) -> Axes:
    if isinstance(layer, tf.keras.layers.Flatten) or data_format == "channels_last":
        return _LAST
    return (2,) if getattr(layer, "return_sequences", False) else (1,)


def _moved(layer: Any, axes: Axes) -> Axes:
    """Returns the axes behind a layer that keeps them or, as `Permute` and `Reshape` do, moves them."""
    if isinstance(layer, tf.keras.layers.Permute):
        rank = len(layer.dims) + 1
        return tuple(sorted((0, *layer.dims).index(axis % rank) - rank for axis in axes))
    if isinstance(layer, (tf.keras.layers.Reshape, tf.keras.layers.RepeatVector)) or keras_class(layer) == "Reshape":
        return axes if axes == _LAST else ()
    return axes
