"""How is counted where a NaN would cost much to look for? As if there were none; and anew, neuron by neuron, if there is."""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.calls import Backward, Call, Forward, call_counts, flow, masks_of, nan_mask
from relu_probe.kernels import EXACT, alike, in_bytes, joined, on_gpu, sum_rows, vector

NARROW = 128  # neurons; of narrow layers it is the number of operations that costs, of others the values


class Hunted(NamedTuple):
    """The counts of one layer, right where no mark is NaN; vectors over the neurons."""

    active: tf.Tensor
    with_gradient: tf.Tensor
    marks: list[tf.Tensor]  # vectors: a NaN in the layer makes a NaN in one of them
    exact: Callable[[], tf.Tensor]  # (3, neurons), with the NaN
    most: int = 2**62  # positions up to which they are right

    def __add__(self, other: "Hunted") -> "Hunted":  # type: ignore[override]  # no tuple is wanted
        """Counts in float32 are exact one by one, their sum in int64."""
        active, with_gradient = (tf.cast(a, tf.int64) + tf.cast(b, tf.int64) for a, b in zip(self[:2], other[:2]))
        return Hunted(
            active,
            with_gradient,
            self.marks + other.marks,
            lambda: tf.cast(self.exact(), tf.int64) + tf.cast(other.exact(), tf.int64),
            min(self.most, other.most),
        )


def may_hunt(neurons: tuple[int, ...], rank: int, xla: bool | None) -> bool:
    """Not where a choice would wait for a value."""
    large = rank > 2 or max(neurons) > NARROW
    return large and xla is False and not tf.executing_eagerly() and not on_gpu()


def hunted(calls: list[Call], axis: int) -> Hunted:
    """Of one layer, called at least once."""
    return reduce(
        Hunted.__add__, [_by_signs(call) if _has_signs(call, axis) else _by_masks(call, axis) for call in calls]
    )


def found(layers: list[Hunted], nan: tf.Variable | None = None) -> tf.Tensor:
    """`(3, neurons)` of the layers side by side, int32; without the NaN where they go into `nan` at once."""
    active, with_gradient = (joined([layer[i] for layer in layers]) for i in (0, 1))
    marks = joined([tf.cast(mark, tf.float32) for layer in layers for mark in layer.marks])

    def exact() -> tf.Tensor:
        counts = joined([layer.exact() for layer in layers], 1)
        if nan is not None:
            nan.assign(tf.maximum(nan, tf.cast(counts[2] > 0, tf.int32)))
        return tf.cast(counts if nan is None else counts[:2], tf.int32)

    def quick() -> tf.Tensor:
        none = [] if nan is not None else [tf.zeros_like(active)]
        return tf.cast(tf.stack(alike(active, with_gradient, *none)), tf.int32)

    return tf.cond(tf.math.is_nan(tf.reduce_sum(marks)), exact, quick)


def _has_signs(call: Call, axis: int) -> bool:
    """Whether the graph shows a plain ReLU and its gradient, few enough neurons, and no sum that rounds."""
    forward, *backward = call
    output = forward.output
    return (
        isinstance(forward, Forward)
        and forward.source is output
        and output.op.type == "Relu"
        and output.dtype == tf.float32
        and output.shape.rank == 2
        and axis != 1
        and not in_bytes(output.shape, axis, False)
        and all(isinstance(b, Backward) and not b.call and flow(b) is not b.gradient for b in backward)
        and len(backward) < 2
    )


def _by_signs(call: Call) -> Hunted:
    """The sign of a ReLU's output is 1 where it is active, 0 where not, and NaN where it is NaN; in half the passes over the
    values that a mask takes. What is infinite behind a neuron that is off is NaN in dL/dz, and so a mark as well."""
    active = sum_rows(tf.sign(call[0].output))
    backward = [t for t in call if isinstance(t, Backward)]
    flows = sum_rows(tf.square(tf.sign(flow(backward[0])))) if backward else tf.zeros_like(active)
    most = EXACT if call[0].output.shape[0] is None else 2**62
    return Hunted(active, flows, [active, flows], lambda: call_counts(call, -1, False), most)


def _by_masks(call: Call, axis: int) -> Hunted:
    fires, flows = masks_of(call)
    active, with_gradient = (
        vector(mask, axis) if mask else tf.zeros([sum(call[0].neurons)]) for mask in (fires, flows)
    )
    return Hunted(
        active,
        with_gradient,
        [_nan_mark(t) for t in call if isinstance(t, Forward)],
        lambda: tf.stack(alike(active, with_gradient, vector(nan_mask(call), axis))),
    )


def _nan_mark(forward: Forward) -> tf.Tensor:
    """`(1,)`: NaN where there may be a NaN in what the layer gave. (No sum of squares is inf - inf.) A convolution cannot give
    one where the squares of its inputs and weights have a finite sum, by Cauchy and Schwarz; its inputs may be the fewer."""
    if small := _inputs_of_convolution(forward.source):
        x, kernel, bias = (tf.nn.l2_loss(tensor) for tensor in small)
        return tf.where(tf.math.is_finite(x * kernel + bias), 0.0, np.nan)[None]  # TensorFlow 2.16 takes 0 * inf for 0
    return tf.nn.l2_loss(forward.source)[None]


def _inputs_of_convolution(output: tf.Tensor) -> list[tf.Tensor]:
    """`[x, kernel, bias]` where `output` is `relu(conv(x, kernel) + bias)` and has more values than `x`; else nothing."""
    if output.dtype == tf.float16 or output.op.type != "Relu":  # in float16 most sums of squares are infinite
        return []
    if (add := output.op.inputs[0].op).type not in ("BiasAdd", "AddV2"):
        return []
    convolution, bias = add.inputs[0].op, add.inputs[1]
    if convolution.type not in ("Conv2D", "Conv3D", "DepthwiseConv2dNative"):
        return []
    x, kernel = convolution.inputs
    sizes = [tensor.shape[1:].num_elements() for tensor in (x, output)]
    return [x, kernel, bias] if None not in sizes and sizes[0] < sizes[1] else []
