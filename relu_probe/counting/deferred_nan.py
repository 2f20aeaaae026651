"""How is counted where a NaN would cost much to look for? As if there were none; and anew, neuron by neuron, if there is."""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.counting.kernels import WIDE, alike, joined, on_gpu, vector
from relu_probe.counting.passes import ForwardPass, LayerCall, masks_of, nan_mask
from relu_probe.counting.pooling import by_windows


class DeferredNanCounts(NamedTuple):
    """The counts of one layer, right where no mark is NaN; vectors over the neurons."""

    active: tf.Tensor
    with_gradient: tf.Tensor
    marks: list[tf.Tensor]  # vectors: a NaN in the layer makes a NaN in one of them
    exact: Callable[[], tf.Tensor]  # (3, neurons), with the NaN

    def __add__(self, other: "DeferredNanCounts") -> "DeferredNanCounts":  # type: ignore[override]  # no tuple is wanted
        """Of two calls."""
        active, with_gradient = (tf.cast(a, tf.int64) + tf.cast(b, tf.int64) for a, b in zip(self[:2], other[:2]))
        return DeferredNanCounts(
            active,
            with_gradient,
            self.marks + other.marks,
            lambda: tf.cast(self.exact(), tf.int64) + tf.cast(other.exact(), tf.int64),
        )


def can_defer_nan(neurons: tuple[int, ...], rank: int, xla: bool | None) -> bool:
    """Not where a choice would wait for a value."""
    large = rank > 2 or max(neurons) >= WIDE
    return large and xla is False and not tf.executing_eagerly() and not on_gpu()


def hunted(calls: list[LayerCall], axis: int) -> DeferredNanCounts:
    """Of one layer, called at least once."""
    return reduce(DeferredNanCounts.__add__, [_by_masks(call, axis) for call in calls])


def found(layers: list[DeferredNanCounts], nan: tf.Variable | None = None) -> tf.Tensor:
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


def _by_masks(call: LayerCall, axis: int) -> DeferredNanCounts:
    windows = by_windows(call)
    fires, flows = masks_of(call) if windows is None else (masks_of(call[:1])[0], windows)
    active, with_gradient = (
        vector(mask, axis) if mask else tf.zeros([sum(call[0].neurons)]) for mask in (fires, flows)
    )

    def exact() -> tf.Tensor:
        # Not pooled once more: by which of a window's positions NaN are passed on, another kernel decides otherwise.
        gradients = with_gradient if windows is None else vector(masks_of(call)[1], axis)
        return tf.stack(alike(active, gradients, vector(nan_mask(call), axis)))

    return DeferredNanCounts(active, with_gradient, [_nan_mark(t) for t in call if isinstance(t, ForwardPass)], exact)


def _nan_mark(forward: ForwardPass) -> tf.Tensor:
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
