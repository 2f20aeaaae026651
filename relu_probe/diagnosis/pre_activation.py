"""What does a ReLU stand on? z = scale * (w.x + b) + shift: a linear layer, BatchNormalization or Dropout behind it.

Evaluated in float64 with a twin of the linear layer, so that the sign of w.x is not a matter of rounding.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall, over_neurons
from relu_probe.report.layer_report import Floats, Mask
from relu_probe.structure.keras_layers import keras_class
from relu_probe.structure.relu_layers import ReluLayer

LINEAR = (
    *("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    *("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
)
# In inference these hand on what they get.
IDENTITY = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout"),
    *("GaussianNoise", "ActivityRegularization", "Identity"),
)
BATCH_NORM = "BatchNormalization"


@dataclass(frozen=True)
class PreActivation:
    """z = scale * (linear(x) + b) + shift, `scale` and `shift` one value a neuron (or a scalar), on `axis`."""

    linear: Any
    x: tf.Tensor
    axis: int
    scale: Any
    shift: Any
    offset_description: str  # what the constant part consists of

    def evaluate(self, twins: "Float64Copies") -> tuple[Floats, Floats, Mask]:
        """Of each position w.x and z, scaled, and whether anything but zeros reaches the neuron there."""
        x = tf.cast(self.x, tf.float64)
        own, mask = twins.of(self.linear, self.x)
        product, paths = np.asarray(own(x)), np.asarray(mask(tf.ones_like(x)))
        # An input with a weight of zero does not reach the neuron. One without any weights is not short of inputs.
        reach = np.where(paths == 0, np.any(x != 0), np.asarray(mask(tf.abs(x))) != 0)
        scale, shift, bias = (
            _aligned(v, self.axis, product.ndim) for v in (self.scale, self.shift, _bias(self.linear))
        )
        return scale * product, scale * (product + bias) + shift, reach


def pre_activation_of(flow: CallTrace, call: TracedCall, relu: ReluLayer) -> PreActivation | None:
    """What the ReLU's call stands on; None where the structure does not show it."""
    threshold = relu.threshold
    words = [f"the threshold {threshold:g}"] if threshold else []
    scale: Any = 1.0
    shift: Any = -threshold
    while keras_class(call.layer) not in LINEAR:
        previous = flow.producer(call.inputs[0]) if len(call.inputs) == 1 else None
        if previous is None or not (_is_linear(previous.layer) or hands_on(previous.layer)):
            return None
        call = previous
        if keras_class(call.layer) == BATCH_NORM:
            if (folded := batch_norm(call.layer, relu.axis, call.output.shape.rank)) is None:
                return None
            scale, shift = scale * folded[0], scale * folded[1] + shift
            words.insert(0, "beta and the moving mean of BatchNormalization")
    if len(call.inputs) != 1:
        return None
    if not words or words[0].startswith("the threshold"):
        words.insert(0, "the bias")
    return PreActivation(call.layer, call.inputs[0], relu.axis, scale, shift, " and ".join(dict.fromkeys(words)))


def hands_on(layer: Any) -> bool:
    """Whether the layer keeps each neuron where it is: BatchNormalization, Dropout and their like, no activation."""
    return keras_class(layer) in (*IDENTITY, BATCH_NORM) or (
        keras_class(layer) == "Activation" and has_linear_output(layer)
    )


def has_linear_output(layer: Any) -> bool:
    return getattr(layer, "activation", None) in (None, tf.keras.activations.linear)


def _is_linear(layer: Any) -> bool:
    return keras_class(layer) in LINEAR and has_linear_output(layer)


def batch_norm(layer: Any, axis: int, rank: int) -> tuple[Floats, Floats] | None:
    """`(scale, shift)` of the layer in inference; None where it does not normalise the neurons' axis."""
    axes = [a % rank for a in tf.nest.flatten(layer.axis)]
    if axes != [axis % rank]:
        return None
    mean, variance = (np.asarray(v, np.float64) for v in (layer.moving_mean, layer.moving_variance))
    gamma = np.asarray(layer.gamma, np.float64) if layer.scale else 1.0
    beta = np.asarray(layer.beta, np.float64) if layer.center else 0.0
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale, beta - scale * mean


class Float64Copies:
    """Of each linear layer two copies in float64, without bias and activation.

    One has its own weights, the other ones where these are not zero.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, Any]] = {}

    def of(self, layer: Any, x: tf.Tensor) -> tuple[Any, Any]:
        if id(layer) not in self._kept:
            self._kept[id(layer)] = (own, mask) = (_twin(layer, x), _twin(layer, x))
            own.set_weights(layer.get_weights()[: len(own.weights)])
            mask.set_weights([w != 0 for w in own.get_weights()])
        return self._kept[id(layer)]


def _twin(layer: Any, x: tf.Tensor) -> Any:
    config = {key: _neutral(key, value) for key, value in layer.get_config().items()}
    twin = type(layer).from_config(config)
    twin.build((None, *x.shape[1:]))
    return twin


def _neutral(key: str, value: Any) -> Any:
    """A configuration without bias and activation, and without functions of the user's own."""
    if key.endswith("_initializer"):
        return "zeros"
    if key.endswith(("_regularizer", "_constraint", "bias_axes")):
        return None
    return {"activation": "linear", "use_bias": False, "dtype": "float64"}.get(key, value)


def _bias(layer: Any) -> Any:
    bias = getattr(layer, "bias", None)
    return 0.0 if bias is None else np.asarray(bias, np.float64)


def _aligned(values: Any, axis: int, rank: int) -> Any:
    values = np.asarray(values, np.float64)
    return values.reshape(-1, *[1] * (rank - 1 - axis % rank)) if values.ndim == 1 else values


def largest(values: Any, axis: int) -> Floats:
    """`(neurons,)`, over all positions; nan where one is."""
    return over_neurons(np.max, values, axis)
