"""The layout of linear layers' weights: which input each weight multiplies, and to which unit it leads.

The *units* of a linear layer are its output channels, numbered from 0. For `EinsumDense` they are all output axes that come
from the kernel, flattened. A layout is an integer array that broadcasts to the shape of a weight.
"""

from string import ascii_uppercase
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from relu_probe.structure.keras_layers import keras_class

Layout = NDArray[np.int32]
NO_SOURCE = ALL_UNITS = -1

_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")


class WeightMap(NamedTuple):
    """A kernel and what its weights connect.

    Args:
        variable: the kernel.
        source: for each weight, the number that its input carries; -1 for an input that carries none.
        unit: for each weight, the unit to which it leads; -1 if it leads to all units.
        units: the number of units.
    """

    variable: Any
    source: Layout
    unit: Layout
    units: int


def incoming_weights(layer: Any) -> tuple[Any, Layout] | None:
    """The kernel whose weights belong to one unit each, and for each weight its unit; None for an unknown layer.

    >>> import tensorflow as tf
    >>> layer = tf.keras.layers.Dense(3)
    >>> layer.build((None, 2))
    >>> incoming_weights(layer)[1]
    array([[0, 1, 2]], dtype=int32)
    """
    name = keras_class(layer)
    if _is_replaced(layer):
        return None
    if name == "Dense" or name in _CONVOLUTIONS:
        return layer.kernel, _along(_numbers(layer.kernel.shape[-1]), -1, len(layer.kernel.shape))
    if name in _TRANSPOSED:
        return layer.kernel, _along(_numbers(layer.kernel.shape[-2]), -2, len(layer.kernel.shape))
    if name in _DEPTHWISE:
        kernel = depthwise_kernel(layer)
        return kernel, _numbers(*kernel.shape[-2:])
    if name in _SEPARABLE:
        kernel = layer.pointwise_kernel
        return kernel, _along(_numbers(kernel.shape[-1]), -1, len(kernel.shape))
    return _einsum_units(layer) if name == "EinsumDense" else None


def outgoing_weights(layer: Any, sources: Layout) -> WeightMap | None:
    """What the kernel of `layer` connects if its input carries the numbers `sources`, an array of one sample's shape.

    Returns:
        None for an unknown layer, and if one weight multiplies inputs with different numbers.

    >>> import tensorflow as tf
    >>> layer = tf.keras.layers.Dense(3)
    >>> layer.build((None, 4))
    >>> outgoing_weights(layer, np.array([0, 1, 0, 1])).source
    array([[0],
           [1],
           [0],
           [1]])
    """
    if (incoming := incoming_weights(layer)) is None:
        return None
    (kernel, unit), name = incoming, keras_class(layer)
    units = int(unit.max()) + 1
    if name == "EinsumDense":
        source = _einsum_sources(layer, sources)
    elif (channels := constant_along(sources, _channel_axis(layer))) is None:
        return None
    elif name == "Dense" or name in _CONVOLUTIONS:
        source = _grouped(channels, getattr(layer, "groups", 1), units)
    elif name in _TRANSPOSED:
        source = channels
    else:
        source = channels[:, None]
    if name in _SEPARABLE:  # the inputs meet the depthwise kernel, each of whose weights leads to all units
        kernel, unit = depthwise_kernel(layer), np.full(1, ALL_UNITS, np.int32)
    return None if source is None else WeightMap(kernel, source, unit, units)


def input_axis(layer: Any) -> int | None:
    """The axis along which the inputs lie in the kernel that meets them; None if it is not one axis.

    >>> import tensorflow as tf
    >>> input_axis(tf.keras.layers.Conv2D(3, 2)), unit_axis(tf.keras.layers.Conv2D(3, 2))
    (-2, -1)
    """
    if keras_class(layer) == "EinsumDense":
        inputs, kernel, outputs = _einsum_letters(layer, 0)
        return _only_axis(kernel, [letter for letter in kernel if letter in inputs and letter not in outputs])
    return -1 if keras_class(layer) in _TRANSPOSED else -2


def unit_axis(layer: Any) -> int | None:
    """The axis along which the units lie in the kernel that `incoming_weights` returns; None if it is not one axis."""
    if keras_class(layer) == "EinsumDense":
        _, kernel, outputs = _einsum_letters(layer, 0)
        return _only_axis(kernel, [letter for letter in kernel if letter in outputs])
    return -2 if keras_class(layer) in _TRANSPOSED else -1


def bias_units(layer: Any, units: int) -> tuple[Any, Layout] | None:
    """The bias and the unit of each of its values; None if the layer has no bias, or not one value for each unit."""
    bias = getattr(layer, "bias", None)
    if bias is None or int(np.prod(bias.shape)) != units or not _has_bias_of_units(layer):
        return None
    return bias, _numbers(*bias.shape)


def constant_along(sources: Layout, *axes: int) -> Layout | None:
    """The numbers along the given axes of a sample; None if they differ along another axis."""
    axes = tuple(axis % sources.ndim for axis in axes)
    found = np.transpose(sources, [*axes, *(i for i in range(sources.ndim) if i not in axes)])
    found = found.reshape(*found.shape[: len(axes)], -1)
    return found[..., 0] if np.all(found == found[..., :1]) else None


def _is_replaced(layer: Any) -> bool:
    """Whether the layer computes with more, or with other weights than its kernel: LoRA, quantized."""
    return bool(getattr(layer, "lora_enabled", False)) or getattr(layer, "quantization_mode", None) is not None


def depthwise_kernel(layer: Any) -> Any:
    """The kernel with which a depthwise or separable convolution meets its input, `(*window, inputs, outputs of each)`."""
    return layer.depthwise_kernel if hasattr(layer, "depthwise_kernel") else layer.kernel


def _channel_axis(layer: Any) -> int:
    return 0 if getattr(layer, "data_format", None) == "channels_first" else -1


def _grouped(channels: Layout, groups: int, units: int) -> Layout:
    """`(inputs / groups, units)` or `(inputs, 1)`: the input of each weight of a convolution, whose units see one group each."""
    if groups == 1:
        return channels[:, None]
    return np.repeat(channels.reshape(groups, -1).T, units // groups, axis=1)


def _numbers(*shape: int) -> Layout:
    return np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)


def _along(values: Layout, axis: int, rank: int) -> Layout:
    return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


# --- EinsumDense ------------------------------------------------------------------------------------------------------


def _einsum_letters(layer: Any, rank: int) -> tuple[str, str, str]:
    """The letters of inputs, kernel and outputs, with those that "..." stands for in inputs of `rank` axes."""
    left, outputs = layer.equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    free = "".join(c for c in ascii_uppercase if c not in layer.equation)[: max(rank - len(inputs) + 3, 0)]
    return inputs.replace("...", free), kernel, outputs.replace("...", free)


def _has_bias_of_units(layer: Any) -> bool:
    """Whether the axes of the bias are those that come from the kernel."""
    if keras_class(layer) != "EinsumDense":
        return True
    _, kernel, outputs = _einsum_letters(layer, 0)
    return set(layer.bias_axes) == set(kernel) & set(outputs)


def _einsum_units(layer: Any) -> tuple[Any, Layout]:
    _, kernel, outputs = _einsum_letters(layer, 0)
    own = [letter for letter in outputs if letter in kernel]
    sizes = dict(zip(kernel, layer.kernel.shape))
    return layer.kernel, _spread(_numbers(*(sizes[letter] for letter in own)), own, kernel)


def _einsum_sources(layer: Any, sources: Layout) -> Layout | None:
    inputs, kernel, _ = _einsum_letters(layer, sources.ndim + 1)
    if inputs[0] in kernel:
        return None
    shared = [letter for letter in inputs[1:] if letter in kernel]
    numbers = constant_along(sources, *(inputs.index(letter) - 1 for letter in shared))
    return None if numbers is None else _spread(numbers, shared, kernel)


def _only_axis(kernel: str, letters: list[str]) -> int | None:
    return kernel.index(letters[0]) - len(kernel) if len(letters) == 1 else None


def _spread(values: Layout, letters: list[str], kernel: str) -> Layout:
    """`values`, whose axes are `letters`, with the axes of the kernel; axes of the kernel that they lack have size 1."""
    ordered = [letter for letter in kernel if letter in letters]
    values = np.transpose(values, [letters.index(letter) for letter in ordered])
    sizes = iter(values.shape)
    return values.reshape([next(sizes) if letter in letters else 1 for letter in kernel])
