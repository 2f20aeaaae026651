"""What one step shows about a ReLU, as small tensors of the step's own graph: the layers' outputs never leave it.

A batch of a convolution has millions of positions and a layer some hundred neurons. So everything is reduced to one value per neuron
where it is computed, and only the reduced values are added up, batch by batch (see evidence.py).
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.diagnosis.call_trace import CallTrace, TracedCall
from relu_probe.diagnosis.pre_activation import LinearCopies, PreActivation
from relu_probe.structure.relu_layers import ReluLayer

_ENORMOUS = 1e300  # stands for infinity, which would alarm enable_check_numerics


class CallObservation(NamedTuple):
    """One call of a ReLU layer whose z is visible. All but the last four are `(neurons,)`.

    `signed` stands for w.x times the sign of BatchNormalization's scale, of which z is an increasing function.

    Args:
        largest, smallest: the largest and the smallest signed w.x.
        largest_inactive: the largest one at a position at which the layer's output is not positive; -1e300 if there is none.
        smallest_active: the smallest one at a position at which it is positive; 1e300 if there is none.
        largest_product: as `largest`, without a bias that differs from place to place.
        receives_input: an input that is not zero reached the neuron.
        has_weights: some weight of the neuron is not zero.
        lowest_input: the smallest input, a scalar.
        input_sum, input_square_sum: `(channels,)` float64, sums over the inputs; `input_count`: the number of inputs of a channel.
    """

    largest: Any
    smallest: Any
    largest_inactive: Any
    smallest_active: Any
    largest_product: Any
    receives_input: Any
    has_weights: Any
    lowest_input: Any
    input_sum: Any
    input_square_sum: Any
    input_count: Any


def observe_activity(trace: CallTrace, calls: list[TracedCall], relu: ReluLayer) -> dict[str, Any]:
    """How many samples each neuron fired on (`fired`, of `samples`), and whether it was ever active `below_ceiling`."""
    samples = tf.shape(trace.inputs[0])[0] if trace.inputs else tf.constant(0)
    below, fired = [], []
    for call in calls:
        output = relu.neurons_last(call.output)
        active = output > 0
        ceiling = None if relu.ceiling is None else tf.cast(relu.ceiling, output.dtype)
        below.append(_reduce(tf.reduce_any, active if ceiling is None else active & (output != ceiling), relu.axis))
        fired.append(_fired(active, relu.axis, samples))
    return {
        "samples": samples,
        "fired": tf.math.count_nonzero(_any(fired), axis=0),
        "below_ceiling": _any(below),
    }


def observe_call(z: PreActivation, call: TracedCall, copies: LinearCopies) -> CallObservation:
    """The observation of one call; raises if a copy cannot have an option of the layer, or has another output shape."""
    first = z.channel_axis == 1  # the convolutions of a CPU want float64 with the channels last
    last, back = (_channels_last, _channels_first) if first else (tf.identity, tf.identity)
    own, mask = copies.of(z.linear, last(z.x))
    x = tf.cast(z.x, tf.float64)
    product = back(own(last(x)))
    if product.shape.rank != call.output.shape.rank or not product.shape.is_compatible_with(call.output.shape):
        raise ValueError("the output of the layer is not that of its weights")
    signed = _signed(product if z.per_place_bias is None else product + z.per_place_bias, z)
    active = call.output > 0
    # Sums of zeros and ones: at least 1 where an input that is not zero has a weight that is not zero.
    received, paths = (
        back(mask(last(given))) > 0.5 for given in (tf.cast(z.x != 0, tf.float32), tf.ones_like(z.x[:1], tf.float32))
    )
    has_weights = _reduce(tf.reduce_any, paths, z.axis)
    # At a position without any weight that is not zero, a neuron is not short of inputs.
    elsewhere = _reduce(tf.reduce_any, ~paths, z.axis) & tf.reduce_any(z.x != 0)
    rest = tuple(axis for axis in range(x.shape.rank) if axis != z.channel_axis % x.shape.rank)
    enormous = tf.constant(_ENORMOUS, tf.float64)
    largest = _largest(signed, z.axis)
    return CallObservation(
        largest=largest,
        smallest=_reduce(tf.reduce_min, signed, z.axis),
        largest_inactive=_reduce(tf.reduce_max, tf.where(active, -enormous, signed), z.axis),
        smallest_active=_reduce(tf.reduce_min, tf.where(active, signed, enormous), z.axis),
        largest_product=largest if z.per_place_bias is None else _largest(_signed(product, z), z.axis),
        receives_input=_reduce(tf.reduce_any, received, z.axis) | elsewhere,
        has_weights=has_weights,
        lowest_input=tf.reduce_min(x),
        input_sum=tf.reduce_sum(x, rest),
        input_square_sum=tf.reduce_sum(x * x, rest),
        input_count=tf.size(x) // tf.shape(x)[z.channel_axis],
    )


def received_gradients(gradients: list[Any]) -> Any:
    """`(channels,)`: whether a gradient that is not zero arrived at an output, or at its logits; None without a path."""
    found = [_reduce(tf.reduce_any, tf.convert_to_tensor(g) != 0, -1) for g in gradients if g is not None]
    return _any(found) if found else None


def extremes(x: Any) -> list[Any]:
    """The smallest and the largest values of a batch, each of one sample's shape. NaN are left out."""
    if not x.dtype.is_floating:
        return [tf.reduce_min(x, 0), tf.reduce_max(x, 0)]
    known, size = ~tf.math.is_nan(x), x.dtype.max
    low, high = (tf.where(known, x, tf.cast(end, x.dtype)) for end in (size, -size))
    return [tf.reduce_min(low, 0), tf.reduce_max(high, 0)]


def is_finite(values: Any) -> Any:
    """Whether a batch has no NaN and no infinity: a scalar."""
    leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(values, expand_composites=True)]
    return _any(
        [tf.constant(True), *(tf.reduce_all(tf.math.is_finite(v)) for v in leaves if v.dtype.is_floating)],
        tf.logical_and,
    )


def _signed(value: Any, z: PreActivation) -> Any:
    sign = np.where(np.asarray(z.scale) < 0, -1.0, 1.0)
    return value if np.all(sign > 0) else value * _aligned(sign, z.axis, value.shape.rank)


def _channels_last(x: Any) -> Any:
    return tf.transpose(x, [0, *range(2, x.shape.rank), 1])


def _channels_first(x: Any) -> Any:
    return tf.transpose(x, [0, x.shape.rank - 1, *range(1, x.shape.rank - 1)])


def _largest(values: Any, axis: int) -> Any:
    """`(neurons,)`: the largest value, NaN next to a NaN, which XLA's maximum ignores."""
    only_nan = tf.where(
        tf.math.is_nan(values), values, tf.zeros_like(values)
    )  # a constant NaN would alarm enable_check_numerics
    return _reduce(tf.reduce_max, values, axis) + _reduce(tf.reduce_sum, only_nan, axis)


def _fired(active: Any, axis: int, samples: Any) -> Any:
    """`(samples, neurons)` bool. If the samples were folded into another axis, any of them may have fired: a higher limit."""
    rank = active.shape.rank
    places = tuple(i for i in range(1, rank) if i != axis % rank)
    rows = tf.reduce_any(active, places)
    index = tf.minimum(tf.range(samples), tf.shape(rows)[0])  # of as many rows as samples, the row of each
    each = tf.gather(tf.concat([rows, tf.zeros_like(tf.reduce_any(rows, 0, keepdims=True))], 0), index)
    return tf.where(tf.shape(rows)[0] == samples, each, tf.reduce_any(rows, 0, keepdims=True))


def _any(masks: list[Any], combine: Any = tf.logical_or) -> Any:
    found = masks[0]
    for mask in masks[1:]:
        found = combine(found, mask)
    return found


def _reduce(reduce: Any, values: Any, axis: int) -> Any:
    """`(neurons,)`: `reduce`, such as `tf.reduce_max`, over all axes of `values` except the neurons' `axis`."""
    rank = values.shape.rank
    return reduce(values, tuple(i for i in range(rank) if i != axis % rank))


def _aligned(values: Any, axis: int, rank: int) -> Any:
    """`(neurons,)`, or a scalar, in a shape that broadcasts to an array of `rank` with the neurons on `axis`."""
    return values.reshape(-1, *[1] * (rank - 1 - axis % rank)) if values.ndim == 1 else values
