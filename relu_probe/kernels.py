"""How are positions counted, exactly and in few passes over the values?

float32 counts exactly up to 2**24, and is summed two to five times as fast as integers are (on a GPU TensorFlow would even
take int32 to the host); so floats add up what is known to be fewer, and int64 the rest.
"""

from typing import Any

import tensorflow as tf

EXACT = 2**24


def count(mask: tf.Tensor, axis: int, *, jit: bool = False) -> tf.Tensor:
    """True positions of each neuron, `(neurons,)`: float32 for `(batch, neurons)`, right up to `EXACT`; else int64."""
    # XLA vectorises a choice, and does not vectorise the conversion of booleans.
    values = tf.where(mask, tf.ones([]), tf.zeros([])) if jit else tf.cast(mask, tf.float32)
    if mask.shape.rank == 2 and axis != 1 and (mask.shape[0] or 0) <= EXACT:
        return _sum_rows(values)
    places = mask.shape[2:].num_elements() if axis == 1 else mask.shape[-2]
    if places is None or places > EXACT:
        values = tf.cast(mask, tf.int64)
    if axis == 1:
        return tf.reduce_sum(tf.cast(tf.reduce_sum(values, list(range(2, mask.shape.rank))), tf.int64), 0)
    return tf.reduce_sum(tf.cast(_over_places(values), tf.int64), 0)


def total(values: tf.Tensor, axis: int) -> tf.Tensor:
    """The sum of each neuron's values, `(neurons,)`."""
    if axis == 1:
        return tf.reduce_sum(values, [0, *range(2, values.shape.rank)])
    return _sum_rows(_over_places(values))


def _over_places(values: tf.Tensor) -> tf.Tensor:
    """`(batch, ..., places, neurons)` -> `(rows, neurons)`: one sum over all axes is up to 10 times as slow in XLA."""
    if values.shape.rank == 2:
        return values
    return tf.reshape(tf.reduce_sum(values, -2), [-1, values.shape[-1]])


def _sum_rows(values: tf.Tensor) -> tf.Tensor:
    """What the bias of a layer gets as its gradient: the fastest sum over rows that TensorFlow has."""
    return tf.raw_ops.BiasAddGrad(out_backprop=values)


def joined(parts: list[Any]) -> Any:
    """Vectors of several layers as one."""
    return parts[0] if len(parts) == 1 else tf.concat(alike(*parts), 0)


def alike(*parts: Any) -> list[Any]:
    """Counts of one kind: int64 where some are."""
    return list(parts) if len({part.dtype for part in parts}) == 1 else [tf.cast(part, tf.int64) for part in parts]


def most(output: tf.Tensor, axis: int) -> int:
    """The positions up to which `count` is right for such an output."""
    return EXACT if output.shape.rank == 2 and axis != 1 and output.shape[0] is None else 2**62
