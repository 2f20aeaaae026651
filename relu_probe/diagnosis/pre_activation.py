"""The pre-activation of a ReLU: z = scale * (w.x + b) + shift, of a linear layer with BatchNormalization or Dropout.

w.x is evaluated with float64 copies of the linear layer, so that rounding does not decide its sign.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.report.layer_report import Floats
from relu_probe.structure.keras_layers import keras_class, output_activation
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
        bias: `(neurons,)`; a scalar 0 without one.
        scale: `(neurons,)` or a scalar.
        shift: `(neurons,)` or a scalar.
        offset_description: what the constant part of z consists of, such as "the bias".
        chain: the calls from the linear layer's to the ReLU's.
    """

    linear: Any
    x: tf.Tensor
    axis: int
    bias: Floats
    scale: Any
    shift: Any
    offset_description: str
    chain: tuple[TracedCall, ...]

    @property
    def per_place_bias(self) -> Floats | None:
        """A bias that is not one number per neuron, as an EinsumDense may have; None for the usual kind."""
        return self.bias if self.bias.ndim > 1 else None

    @property
    def channel_axis(self) -> int:
        """The axis of the channels (or features) in `x`."""
        return 1 if getattr(self.linear, "data_format", None) == "channels_first" else -1

    def used_channels(self, channels: int) -> Any:
        """`(channels,)` bool: the channels of `x` with a weight that is not zero, for layers whose kernel shows them."""
        if keras_class(self.linear) not in ("Dense", "Conv1D", "Conv2D", "Conv3D"):
            return np.ones(channels, bool)
        kernel = np.asarray(self.linear.kernel)
        if kernel.shape[-2] != channels:  # of a grouped convolution
            return np.ones(channels, bool)
        return np.any(kernel != 0, axis=tuple(axis for axis in range(kernel.ndim) if axis != kernel.ndim - 2))

    def of_product(self, product: Any) -> Floats:
        """`(neurons,)`: z of values of w.x, one per neuron, a bias per place included. z is monotone in w.x, rounding included."""
        each = 0.0 if self.per_place_bias is not None else self.bias
        return np.asarray(self.scale * (np.asarray(product) + each) + self.shift, np.float64)


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
            folded = None if relu.flattened else batch_norm(call.layer, relu.axis, call.output.shape.rank)
            if folded is None:
                return None
            scale, shift = scale * folded[0], scale * folded[1] + shift
            offsets.insert(0, "beta and the moving mean of BatchNormalization")
    if len(call.inputs) != 1:
        return None
    if not offsets or offsets[0].startswith("the threshold"):
        offsets.insert(0, "the bias")
    bias = getattr(call.layer, "bias", None)
    bias = _value(0.0 if bias is None else bias)
    description = " and ".join(dict.fromkeys(offsets))
    return PreActivation(call.layer, call.inputs[0], relu.axis, bias, scale, shift, description, tuple(chain))


def preserves_neurons(layer: Any) -> bool:
    """Whether the layer keeps the neurons apart and in order: BatchNormalization, Dropout and the like, no activation."""
    return keras_class(layer) in (*IDENTITY, BATCH_NORM) or (
        keras_class(layer) == "Activation" and has_linear_output(layer)
    )


def has_linear_output(layer: Any) -> bool:
    """Whether the layer has no activation, or the linear one."""
    return getattr(layer, "activation", output_activation(layer)) in (None, tf.keras.activations.linear)


def _is_linear(layer: Any) -> bool:
    return keras_class(layer) in LINEAR and has_linear_output(layer)


def batch_norm(layer: Any, axis: int, rank: int) -> tuple[Floats, Floats] | None:
    """`(scale, shift)` of BatchNormalization in inference; None if it does not normalise the neurons' axis."""
    axes = [a % rank for a in tf.nest.flatten(layer.axis)]
    if axes != [axis % rank]:
        return None
    mean, variance = _value(layer.moving_mean), _value(layer.moving_variance)
    gamma = _value(layer.gamma) if layer.scale else 1.0
    beta = _value(layer.beta) if layer.center else 0.0
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale, beta - scale * mean


def _value(variable: Any) -> Floats:
    """The value of a weight in float64, also while a graph is being traced."""
    with tf.init_scope():
        return np.asarray(variable, np.float64)


class LinearCopies:
    """Two copies of each linear layer, without bias and activation.

    One is in float64 and has the weights of the layer. The weights of the other are 1 where the layer's weights are not zero,
    else 0. They are made outside of the graph that is being traced.
    """

    def __init__(self) -> None:
        self._copies: dict[int, tuple[Any, Any]] = {}

    def of(self, layer: Any, x: tf.Tensor) -> tuple[Any, Any]:
        """The two copies of `layer`, built for inputs like `x` with the channels last, and made once.

        Raises:
            Exception: a copy cannot have an option of the layer, or an operation has no kernel for float64.
        """
        if id(layer) not in self._copies:
            with tf.init_scope():
                own, mask = (neutral_copy(layer, x.shape[1:], dtype) for dtype in ("float64", "float32"))
                own.set_weights(layer.get_weights()[: len(own.weights)])
                mask.set_weights([w != 0 for w in own.get_weights()])
                if x.shape[1:].is_fully_defined():
                    own(tf.zeros((1, *x.shape[1:]), tf.float64))  # in the graph an error would come too late
                self._copies[id(layer)] = own, mask
        return self._copies[id(layer)]


def neutral_copy(layer: Any, shape: Any, dtype: str) -> Any:
    """A copy of a layer for inputs whose samples have this shape, channels last: without bias and activation, in `dtype`."""
    config = {key: _neutral(key, value, dtype) for key, value in layer.get_config().items()}
    copy = type(layer).from_config(config)
    copy.build((None, *shape))
    return copy


def _neutral(key: str, value: Any, dtype: str) -> Any:
    """The value of a configuration without bias and activation, and without functions written by the user."""
    if key.endswith("_initializer"):
        return "zeros"
    if key.endswith(("_regularizer", "_constraint", "bias_axes")):
        return None
    fixed = {"activation": "linear", "use_bias": False, "dtype": dtype, "data_format": "channels_last"}
    return fixed.get(key, value)
