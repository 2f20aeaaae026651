"""The counts of one call of a layer, by the counting method that `kernels.plan` chooses."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from relu_probe.counting import kernels
from relu_probe.counting.deferred_nan import joint_nan_mask, largest_or_nan, may_have_nan, nan_mask, nan_test
from relu_probe.counting.max_pooling import windows_of
from relu_probe.counting.passes import LayerCall, masks_of
from relu_probe.counting.shared_functions import SharedFunctions


class CallCounts(NamedTuple):
    """The counts of one call, or the sum of several.

    `counts` are the positions active and the positions with a gradient, `(neurons,)` each, or both concatenated. `nan_test` is a
    scalar bool; False proves that there is no NaN. It is None if the mask costs no more than the test. `nan_mask` returns
    `(neurons,)`, bool or the floats of `largest_or_nan`.
    """

    counts: list[tf.Tensor]
    nan_test: tf.Tensor | None
    nan_mask: Callable[[], tf.Tensor]

    def plus(self, other: "CallCounts") -> "CallCounts":
        """Returns the sum of both counts."""
        tests = None if self.nan_test is None or other.nan_test is None else self.nan_test | other.nan_test
        counts = [tf.cast(kernels.concat(each.counts), tf.int64) for each in (self, other)]
        return CallCounts(
            [tf.add_n(counts)], tests, lambda: joint_nan_mask([self.nan_mask()]) | joint_nan_mask([other.nan_mask()])
        )


def count_call(call: LayerCall, axis: int, xla: bool | None, shared: SharedFunctions | None) -> CallCounts:
    """Counts the positions of a call.

    Args:
        call: one call of a layer.
        axis: the axis of the neurons, -1 or 1.
        xla: whether XLA compiles the counting, None if that is not known.
        shared: the shared functions of the model; None outside of the step's graph.
    """
    way = kernels.plan(call.output.shape, axis, xla, shared is not None and shared.many_layers)
    if way is kernels.packed:
        return _count_packed(call, shared)
    if shared is None or call.source is None or way is not kernels.in_bytes or tf.executing_eagerly():
        counts, test = _with_zeros(way(masks_of(call), axis), call), None
    else:
        counts, test = _count_in_function(call, shared)
    if call.source is None:  # NaN were already looked for when the forward pass was counted
        return CallCounts(counts, tf.constant(False), lambda: tf.zeros(call.output.shape[axis], bool))
    if way is kernels.places:
        largest = largest_or_nan(call.source, axis)
        return CallCounts(counts, None, lambda: largest)
    return CallCounts(counts, nan_test(call, xla, test), lambda: nan_mask(call.source, axis))


def _count_in_function(call: LayerCall, shared: SharedFunctions) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Returns the counts, and whether the output may have a NaN.

    Before max pooling, gradients are counted by windows instead of positions, unless there may be NaN.
    """
    neurons = call.output.shape[-1]
    # A call that is not inlined takes some 30 µs: 2 % of the step of three dense layers, 2 to 5 % of that of three images.
    inline = call.output.shape.rank == 2 or not shared.many_layers or not shared.loops

    def run(body: Callable[..., Any], of: LayerCall) -> Any:
        return shared.call(body, [of.output, *of.gradients], of.ceiling, one_for_all_shapes=True, inline=inline)

    if call.output.shape.rank == 2 and neurons >= kernels.VERY_WIDE:
        body = _count_quarters if neurons % 16 == 0 else _count_bytes  # TensorFlow copies quarters that are not aligned
        *counts, may = shared.call(body, [call.output, *call.gradients], call.ceiling)
    elif (windows := windows_of(call)) is None:
        *counts, may = run(_count_bytes, call)
    else:
        active, may = run(_count_bytes, call._replace(gradients=()))
        counts = [active, tf.cond(may, lambda: run(_count_gradients, call), lambda: run(_count_gradients, windows))]
    for each in counts:
        each.set_shape([neurons])
    may.set_shape([])
    return _with_zeros(counts, call), may


def _count_bytes(ceiling: float | None, output: tf.Tensor, *gradients: tf.Tensor) -> list[tf.Tensor]:
    masks = masks_of(LayerCall(output, output, gradients, ceiling))
    return [*kernels.in_bytes(masks, -1), may_have_nan(output)]


def _count_quarters(ceiling: float | None, output: tf.Tensor, *gradients: tf.Tensor) -> list[tf.Tensor]:
    """Counts the quarters of the batch one after the other, once the gradients have been computed.

    The masks of a whole batch take a quarter of the memory of the output. If they were computed in the forward pass, they would still
    be in memory when the backward pass needs most of it.
    """
    samples = tf.shape(output)[0]
    sizes = [samples // 4] * 3 + [samples - samples // 4 * 3]
    counts: list[Sequence[tf.Tensor]] = [gradients]  # what the next quarter waits for
    for quarter, *arrived in zip(*(tf.split(tensor, sizes) for tensor in (output, *gradients))):
        with tf.control_dependencies(counts[-1]):
            counts.append(kernels.in_bytes(masks_of(LayerCall(quarter, quarter, tuple(arrived), ceiling)), -1))
    return [*map(tf.add_n, zip(*counts[1:])), may_have_nan(output)]


def _count_gradients(ceiling: float | None, output: tf.Tensor, *gradients: tf.Tensor) -> tf.Tensor:
    return kernels.in_bytes(masks_of(LayerCall(output, None, gradients, ceiling)), -1)[0]


def _count_packed(call: LayerCall, shared: SharedFunctions | None) -> CallCounts:
    """Counts under XLA: active positions, gradients and NaN in a single pass."""
    known, neurons = call.source is not None, call.output.shape[-1]
    tensors = [call.output, *([call.source] if known else []), *call.gradients]
    static = (call.ceiling, known)
    counts = _pack(*static, *tensors) if shared is None else shared.call(_pack, tensors, *static)
    counts, nan = (counts[:-neurons], counts[-neurons:] > 0) if known else (counts, tf.zeros(neurons, bool))
    return CallCounts(_with_zeros([counts], call), None, lambda: nan)


def _pack(ceiling: float | None, has_source: bool, output: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
    """Returns the counts of `masks_of`, and of NaN if there is a source. XLA counts several parts of an image at a time."""
    k = kernels.parts_of(output.shape)
    parts = []
    for tensors in zip(*(_split(tensor, k) for tensor in (output, *others))):
        source, gradients = (tensors[1], tensors[2:]) if has_source else (None, tensors[1:])
        masks = masks_of(LayerCall(tensors[0], source, gradients, ceiling))
        parts.append([*masks, *([[tf.math.is_nan(source)]] if has_source else [])])
    return kernels.packed_parts(parts)


def _split(tensor: tf.Tensor, k: int) -> list[tf.Tensor]:
    """Divides the places of each sample into `k` parts."""
    shape = tensor.shape
    if k == 1:
        return [tensor]
    parts: list[tf.Tensor] = tf.unstack(tf.reshape(tensor, [-1, k, shape[1:-1].num_elements() // k, shape[-1]]), axis=1)
    return parts


def _with_zeros(counts: list[tf.Tensor], call: LayerCall) -> list[tf.Tensor]:
    """Returns the counts of both passes: zeros replace those of a pass that does not belong to this call."""
    if call.source is not None and call.gradients:
        return counts
    zeros = tf.zeros_like(counts[0])
    return [zeros, *counts] if call.source is None else [*counts, zeros]
