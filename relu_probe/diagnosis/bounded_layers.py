"""Bounds of what one layer computes, before its activation, over boxes of its inputs, in inference mode."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.interval_arithmetic import (
    Arithmetic,
    Box,
    through_affine,
    through_average,
    through_scaling,
    through_sum,
)
from relu_probe.diagnosis.pre_activation import BATCH_NORM, IDENTITY, LINEAR, has_linear_output, neutral_copy
from relu_probe.report.layer_report import Floats
from relu_probe.structure.keras_layers import keras_class, output_activation
from relu_probe.structure.weight_layout import incoming_weights

_RELUS = ("ReLU", "Relu", "Relu6")  # the last two are operations of a functional graph
# These move, drop or repeat values, or take the largest, so that the ends of a box may be passed through them.
_MONOTONE = ("MaxPooling", "GlobalMaxPooling", "ZeroPadding", "Cropping", "UpSampling", "Flatten", "Reshape", "Permute")


class Unbounded(Exception):
    """The bounds cannot be carried through a layer. The argument names it."""


def bounds_after(layer: Any, boxes: list[Box], arithmetic: Arithmetic) -> Box:
    """Bounds of what the layer computes before its activation.

    Args:
        layer: a layer, or an operation of a functional graph.
        boxes: bounds of its inputs, each of one sample's shape.
        arithmetic: that of the layer.

    Raises:
        Unbounded: the layer is not known, a value may overflow, or there is no float64 version of the layer.
    """
    rule = _rule(layer, len(boxes))
    if rule is None or not (has_linear_output(layer) or is_plain_relu(output_activation(layer))):
        raise Unbounded(layer.name)
    if keras_class(layer) in LINEAR[1:] and tf.config.list_physical_devices("GPU"):
        raise Unbounded(f"{layer.name} on a GPU, where a convolution may round more than a sum")
    first = getattr(layer, "data_format", None) == "channels_first"
    try:
        found = rule(layer, [_moved(box, 0, -1) if first else box for box in boxes], arithmetic)
    except Exception as error:
        raise Unbounded(layer.name) from error
    if found is None:
        raise Unbounded(layer.name)
    return _moved(found, -1, 0) if first and found.low.ndim == boxes[0].low.ndim else found


def is_plain_relu(function: Any) -> bool:
    """Whether this is a ReLU of Keras or TensorFlow, which is known everywhere.

    Other functions are recognised as ReLUs by their values on a few points, which proves nothing about other points.
    """
    name = keras_class(function)
    if name == "Activation":
        return is_plain_relu(function.activation)
    if name in _RELUS:
        return not getattr(function, "negative_slope", 0)
    names = [(tf.keras.activations, "relu"), (tf.keras.activations, "relu6"), (tf.nn, "relu"), (tf.nn, "relu6")]
    return any(function is getattr(module, name) for module, name in names if hasattr(module, name))


_Rule = Callable[[Any, list[Box], Arithmetic], Box | None]


def _rule(layer: Any, inputs: int) -> _Rule | None:
    """What carries bounds through a layer with this number of inputs, None for an unknown layer."""
    name, is_layer = keras_class(layer), isinstance(layer, tf.keras.layers.Layer)
    if name in ("Add", "Concatenate"):
        several = {"Add": is_layer or inputs == 2, "Concatenate": is_layer}
        return _RULES[name] if several[name] else None
    if inputs != 1 or (name in LINEAR and incoming_weights(layer) is None):
        return None
    resized = getattr(layer, "interpolation", "nearest") != "nearest"
    moves = is_layer and name.startswith(_MONOTONE) and not resized
    return _through_ends if moves else _average if "AveragePooling" in name else _RULES.get(name)


def _unchanged(layer: Any, boxes: list[Box], arithmetic: Arithmetic) -> Box:
    return boxes[0]


def _linear(layer: Any, boxes: list[Box], arithmetic: Arithmetic) -> Box | None:
    kernel, _ = incoming_weights(layer)  # type: ignore[misc]
    return through_affine(boxes[0], _value(kernel), _bias(layer), arithmetic, _product(layer, boxes[0]))


def _separable(layer: Any, boxes: list[Box], arithmetic: Arithmetic) -> Box | None:
    """A depthwise convolution, and one over single places, each of which rounds."""
    config = layer.get_config()
    kept = ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier", "dtype")
    rank = len(layer.kernel_size)
    deep = getattr(tf.keras.layers, f"DepthwiseConv{rank}D")(name=layer.name, **{key: config[key] for key in kept})
    depthwise, pointwise = layer.get_weights()[:2]
    inner = through_affine(boxes[0], depthwise, None, arithmetic, _product(deep, boxes[0]))
    kernel = pointwise.reshape(pointwise.shape[-2:])
    return None if inner is None else through_affine(inner, kernel, _bias(layer), arithmetic)


def _batch_norm(layer: Any, boxes: list[Box], arithmetic: Arithmetic) -> Box | None:
    rank = boxes[0].low.ndim + 1
    (axis,) = (axis % rank - 1 for axis in tf.nest.flatten(layer.axis))
    shape = [-1 if i == axis else 1 for i in range(rank - 1)]
    mean, variance = _value(layer.moving_mean), _value(layer.moving_variance)
    gamma = _value(layer.gamma) if layer.scale else np.ones_like(mean)
    beta = _value(layer.beta) if layer.center else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return through_scaling(boxes[0], mean.reshape(shape), scale.reshape(shape), beta.reshape(shape), arithmetic)


def _average(layer: Any, boxes: list[Box], arithmetic: Arithmetic) -> Box | None:
    box = boxes[0]
    window = getattr(layer, "pool_size", box.low.shape[:-1])
    return through_average(box, int(np.prod(window)), _float64(layer, box), arithmetic)


def _add(layer: Any, boxes: list[Box], arithmetic: Arithmetic) -> Box | None:
    same_rank = len({box.low.ndim for box in boxes}) == 1
    return through_sum(boxes, arithmetic) if same_rank else None


def _concatenate(layer: Any, boxes: list[Box], arithmetic: Arithmetic) -> Box:
    axis = layer.axis % (boxes[0].low.ndim + 1) - 1
    return Box(*(np.concatenate(ends, axis) for ends in zip(*boxes)))


def _through_ends(layer: Any, boxes: list[Box], arithmetic: Arithmetic) -> Box:
    return Box(*map(_float64(layer, boxes[0]), boxes[0]))


_RULES: dict[str, _Rule] = {
    **dict.fromkeys((*IDENTITY, *_RELUS, "Activation"), _unchanged),
    **{name: _separable if name.startswith("Separable") else _linear for name in LINEAR if name != "EinsumDense"},
    BATCH_NORM: _batch_norm,
    "Add": _add,
    "Concatenate": _concatenate,
}


# --- float64 ----------------------------------------------------------------------------------------------------------


def _product(layer: Any, box: Box) -> Callable[[Floats, Floats], Floats]:
    """What the layer does with inputs and a kernel, without bias and activation."""
    if keras_class(layer) == "Dense":
        return np.matmul
    copy = neutral_copy(layer, box.low.shape, "float64")

    def product(x: Floats, kernel: Floats) -> Floats:
        copy.set_weights([kernel])
        return _called(copy, x)

    return product


def _float64(layer: Any, box: Box) -> Callable[[Floats], Floats]:
    """The layer as a function of one sample in float64."""
    copy = neutral_copy(layer, box.low.shape, "float64")
    return lambda x: _called(copy, x)


def _called(copy: Any, x: Floats) -> Floats:
    return np.asarray(copy(tf.constant(x[None], tf.float64)))[0]


def _moved(box: Box, source: int, target: int) -> Box:
    return Box(*(np.moveaxis(bound, source, target) for bound in box))


def _bias(layer: Any) -> Floats | None:
    return _value(layer.bias) if layer.use_bias else None


def _value(variable: Any) -> Floats:
    return np.asarray(tf.convert_to_tensor(variable), np.float64)
