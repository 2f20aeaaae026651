"""Large samples are counted and summed one by one: masks and float64 copies of a whole batch would take more memory than the batch."""

from collections.abc import Callable

import tensorflow as tf

from relu_probe.counting.kernels import concat, on_gpu, plan, sum_places, sum_rows
from relu_probe.counting.passes import LayerCall, masks_of

LARGE_SAMPLE = 2**16  # values of a sample, from which activations are summed sample by sample
# From so many neurons, samples are counted some at a time: a step of a million takes 1.39 times as long as without the probe, 1.33 if
# whole batches are counted; one of 65,536 neurons 1.46 and 1.26.
VERY_WIDE = 2**19
_COUNTED_AT_ONCE = 8


def is_counted_by_sample(call: LayerCall, xla: bool | None) -> bool:
    """Whether the outputs `(batch, neurons)` of a call are counted sample by sample: on a CPU, if there are `VERY_WIDE` neurons."""
    on_cpu = xla is False and not on_gpu() and not tf.executing_eagerly()
    return on_cpu and call.counted is None and call.output.shape.rank == 2 and call.output.shape[1] >= VERY_WIDE


def counts_by_sample(call: LayerCall) -> list[tf.Tensor]:
    """Returns the counts of a very wide layer, some samples at a time: `(neurons,)` int32 of each mask, concatenated."""

    def of_samples(output: tf.Tensor, *gradients: tf.Tensor) -> list[tf.Tensor]:
        source = None if call.source is None else output
        masks = masks_of(call._replace(output=output, source=source, gradients=gradients))
        return [concat(plan(output.shape, -1, False)(masks, -1))]

    number = (call.source is not None) + bool(call.gradients)
    zeros = [tf.zeros(number * call.output.shape[1], tf.int32)]
    return _sum_of_samples(of_samples, [call.output, *call.gradients], zeros, at_once=_COUNTED_AT_ONCE)


def activation_sums(values: tf.Tensor, axis: int, *, loops: bool) -> tf.Tensor:
    """Returns the sum of the values of each neuron, `(neurons,)` float64; of large samples one by one, if there may be loops."""
    if not loops or not _is_large(values):
        return _float64_sums(values, axis)

    def of_sample(sample: tf.Tensor) -> list[tf.Tensor]:
        # The one row of a Dense layer is its own sum: a further vector of a very wide layer takes megabytes.
        return [tf.cast(sample[0], tf.float64) if sample.shape.rank == 2 else _float64_sums(sample, axis)]

    return _sum_of_samples(of_sample, [values], [tf.zeros(values.shape[axis], tf.float64)])[0]


def _is_large(output: tf.Tensor) -> bool:
    return (output.shape[1:].num_elements() or 0) >= LARGE_SAMPLE


def _sum_of_samples(
    of_samples: Callable[..., list[tf.Tensor]], tensors: list[tf.Tensor], zeros: list[tf.Tensor], *, at_once: int = 1
) -> list[tf.Tensor]:
    """Returns `zeros` plus what `of_samples` returns for each `at_once` samples of the tensors.

    All tensors have the shape of the first one, even if that of a gradient is not known.
    """
    samples, shape = tf.shape(tensors[0])[0], [1 if at_once == 1 else None, *tensors[0].shape[1:]]

    def add(i: tf.Tensor, *totals: tf.Tensor) -> tuple[tf.Tensor, ...]:
        slices = [tf.ensure_shape(each[i : i + at_once], shape) for each in tensors]
        return i + at_once, *(total + each for total, each in zip(totals, of_samples(*slices)))

    start = (tf.constant(0), *zeros)
    return list(tf.while_loop(lambda i, *_: i < samples, add, start, parallel_iterations=1)[1:])


def _float64_sums(values: tf.Tensor, axis: int) -> tf.Tensor:
    values = tf.cast(values, tf.float64)
    if axis == 1:
        return tf.reduce_sum(values, [0, *range(2, values.shape.rank)])
    return sum_rows(sum_places(values))
