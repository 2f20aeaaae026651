"""The pre-activation of a ReLU: z = scale * (w.x + b) + shift, of a linear layer with BatchNormalization or Dropout.

It is evaluated with float64 copies of the linear layer, so that rounding does not decide the sign of w.x.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.report.layer_report import Floats, Mask
from relu_probe.structure.keras_layers import keras_class
from relu_probe.structure.relu_layers import ReluLayer

LINEAR = (
    *("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    *("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
)
# In inference these layers return their input.
IDENTITY = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout"),
    *("GaussianNoise", "ActivityRegularization", "Identity"),
)
BATCH_NORM = "BatchNormalization"


@dataclass(frozen=True)
class PreActivation:
    """z = scale * (linear(x) + b) + shift.

    Args:
        linear: the linear layer.
        x: its input.
        axis: the axis of the neurons in z.
        scale: `(neurons,)` or a scalar.
        shift: `(neurons,)` or a scalar.
        offset_description: what the constant part of z consists of, such as "the bias".
        chain: the calls from the linear layer's to the ReLU's.
    """

    linear: Any
    x: tf.Tensor
    axis: int
    scale: Any
    shift: Any
    offset_description: str
    chain: tuple[TracedCall, ...]

    def evaluate(self, copies: "Float64Copies") -> tuple[Floats, Floats, Mask]:
        """`scale * w.x`, z, and whether the neuron receives an input that is not zero; each of the shape of z."""
        x = tf.cast(self.x, tf.float64)
        own, mask = copies.of(self.linear, self.x)
        product, paths = np.asarray(own(x)), np.asarray(mask(tf.ones_like(x)))
        # A neuron does not receive an input whose weight is zero. A neuron without any weights is not short of inputs.
        receives_input = np.where(paths == 0, np.any(x != 0), np.asarray(mask(tf.abs(x))) != 0)
        bias = getattr(self.linear, "bias", None)
        scale, shift, bias = (
            _aligned(v, self.axis, product.ndim) for v in (self.scale, self.shift, 0.0 if bias is None else bias)
        )
        return scale * product, scale * (product + bias) + shift, receives_input


def pre_activation_of(trace: CallTrace, call: TracedCall, relu: ReluLayer) -> PreActivation | None:
    """The pre-activation of a call of the ReLU; None if the trace does not show it."""
    threshold = relu.threshold
    offsets = [f"the threshold {threshold:g}"] if threshold else []
    scale: Any = 1.0
    shift: Any = -threshold
    chain = [call]
    while keras_class(call.layer) not in LINEAR:
        previous = trace.producer(call.inputs[0]) if len(call.inputs) == 1 else None
        if previous is None or not (_is_linear(previous.layer) or preserves_neurons(previous.layer)):
            return None
        call = previous
        chain.insert(0, call)
        if keras_class(call.layer) == BATCH_NORM:
            if (folded := batch_norm(call.layer, relu.axis, call.output.shape.rank)) is None:
                return None
            scale, shift = scale * folded[0], scale * folded[1] + shift
            offsets.insert(0, "beta and the moving mean of BatchNormalization")
    if len(call.inputs) != 1:
        return None
    if not offsets or offsets[0].startswith("the threshold"):
        offsets.insert(0, "the bias")
    description = " and ".join(dict.fromkeys(offsets))
    return PreActivation(call.layer, call.inputs[0], relu.axis, scale, shift, description, tuple(chain))


def preserves_neurons(layer: Any) -> bool:
    """Whether the layer keeps the neurons apart and in order: BatchNormalization, Dropout and the like, no activation."""
    return keras_class(layer) in (*IDENTITY, BATCH_NORM) or (
        keras_class(layer) == "Activation" and has_linear_output(layer)
    )


def has_linear_output(layer: Any) -> bool:
    """Whether the layer has no activation, or the linear one."""
    return getattr(layer, "activation", None) in (None, tf.keras.activations.linear)


def _is_linear(layer: Any) -> bool:
    return keras_class(layer) in LINEAR and has_linear_output(layer)


def batch_norm(layer: Any, axis: int, rank: int) -> tuple[Floats, Floats] | None:
    """`(scale, shift)` of BatchNormalization in inference; None if it does not normalise the neurons' axis."""
    axes = [a % rank for a in tf.nest.flatten(layer.axis)]
    if axes != [axis % rank]:
        return None
    mean, variance = (np.asarray(v, np.float64) for v in (layer.moving_mean, layer.moving_variance))
    gamma = np.asarray(layer.gamma, np.float64) if layer.scale else 1.0
    beta = np.asarray(layer.beta, np.float64) if layer.center else 0.0
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale, beta - scale * mean


class Float64Copies:
    """Two float64 copies of each linear layer, without bias and activation.

    One has the weights of the layer. The weights of the other are 1 where the layer's weights are not zero, else 0.
    """

    def __init__(self) -> None:
        self._copies: dict[int, tuple[Any, Any]] = {}

    def of(self, layer: Any, x: tf.Tensor) -> tuple[Any, Any]:
        """The two copies of `layer`, built for inputs like `x`, and made once."""
        if id(layer) not in self._copies:
            self._copies[id(layer)] = (own, mask) = (_float64_copy(layer, x), _float64_copy(layer, x))
            own.set_weights(layer.get_weights()[: len(own.weights)])
            mask.set_weights([w != 0 for w in own.get_weights()])
        return self._copies[id(layer)]


def _float64_copy(layer: Any, x: tf.Tensor) -> Any:
    config = {key: _neutral(key, value) for key, value in layer.get_config().items()}
    copy = type(layer).from_config(config)
    copy.build((None, *x.shape[1:]))
    return copy


def _neutral(key: str, value: Any) -> Any:
    """The value of a configuration without bias and activation, and without functions written by the user."""
    if key.endswith("_initializer"):
        return "zeros"
    if key.endswith(("_regularizer", "_constraint", "bias_axes")):
        return None
    return {"activation": "linear", "use_bias": False, "dtype": "float64"}.get(key, value)


def _aligned(values: Any, axis: int, rank: int) -> Any:
    """`values`, one per neuron or a scalar, in a shape that broadcasts to an array of `rank` with neurons on `axis`."""
    values = np.asarray(values, np.float64)
    return values.reshape(-1, *[1] * (rank - 1 - axis % rank)) if values.ndim == 1 else values
