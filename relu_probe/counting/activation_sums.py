"""Sums of activations. Large samples are summed one by one: a float64 copy of a whole batch would take twice the memory of the batch."""

import tensorflow as tf

from relu_probe.counting.kernels import sum_places, sum_rows

LARGE_SAMPLE = 2**16  # values of a sample


def activation_sums(values: tf.Tensor, axis: int, *, loops: bool) -> tf.Tensor:
    """Returns the sum of the values of each neuron, `(neurons,)` float64; of large samples one by one, if there may be loops."""
    size = values.shape[1:].num_elements()
    if not loops or size is None or size < LARGE_SAMPLE:
        return _float64_sums(values, axis)
    samples, neurons = tf.shape(values)[0], values.shape[axis]

    def add(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sample = tf.slice(values, [i, *[0] * (values.shape.rank - 1)], [1, *values.shape[1:]])
        # The one row of a Dense layer is its own sum: a further vector of a very wide layer takes megabytes.
        added = tf.cast(tf.reshape(sample, [-1]), tf.float64) if sample.shape.rank == 2 else _float64_sums(sample, axis)
        return i + 1, total + added

    start = (tf.constant(0), tf.zeros(neurons, tf.float64))
    return tf.while_loop(lambda i, total: i < samples, add, start, parallel_iterations=1)[1]


def _float64_sums(values: tf.Tensor, axis: int) -> tf.Tensor:
    values = tf.cast(values, tf.float64)
    if axis == 1:
        return tf.reduce_sum(values, [0, *range(2, values.shape.rank)])
    return sum_rows(sum_places(values))
