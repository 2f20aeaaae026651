"""How are positions counted, exactly and in few passes over the values?

What costs is memory that is written and read again. XLA counts all masks in one pass, in ten bits of an int32 each, the places
of an image some at a time, which it does with vector instructions (a sum over many rows it does not). Without it TensorFlow
adds up bytes, four neurons in an int32; or integers; on a GPU, where it would take those to the host, floats, which are exact
up to 2**24.
"""

from functools import cache, reduce
from typing import Any

import tensorflow as tf

EXACT = 2**24
FEW = 256  # neurons below which it is the number of operations that costs, not the values
WIDE = 1024  # neurons from which the bytes of `(batch, neurons)` are added up
_BITS = 10  # of an int32 for each of three masks
_BYTE = 255  # rows that a byte can count

Mask = list[tf.Tensor]  # bool tensors `(batch, ..., neurons)`: True where all of them are


def counts(masks: list[Mask], axis: int, xla: bool | None) -> tf.Tensor:
    """True positions of each neuron in at most three masks, `(masks, neurons)`.

    Args:
        axis: of the neurons, -1 or 1.
        xla: whether XLA compiles this; None where that is not known.

    Returns:
        int64; int32, which counts the positions of any tensor that fits into memory; or float32, which is right up to
        `most` of them.
    """
    shape = masks[0][0].shape
    if xla and axis != 1:
        return packed([masks])
    if shape.rank == 2 and axis != 1 and shape[1] < FEW:
        whole = [reduce(tf.logical_and, mask) for mask in masks]
        return tf.reshape(_sums(joined(whole, 1), axis), [len(masks), shape[1]])
    return tf.stack([vector(mask, axis, xla) for mask in masks])


def vector(mask: Mask, axis: int, xla: bool | None = False) -> tf.Tensor:
    """`counts` of one mask, without XLA: `(neurons,)`."""
    return _bytes(mask) if in_bytes(mask[0].shape, axis, xla) else _sums(reduce(tf.logical_and, mask), axis)


def most(output: tf.Tensor, axis: int, xla: bool | None) -> int:
    """The positions up to which `counts` is right for such an output."""
    floats = output.shape.rank == 2 and axis != 1 and not xla and on_gpu()
    return EXACT if floats and output.shape[0] is None else 2**62


def total(values: tf.Tensor, axis: int) -> tf.Tensor:
    """The sum of each neuron's values, `(neurons,)`."""
    if axis == 1:
        return tf.reduce_sum(values, [0, *range(2, values.shape.rank)])
    return sum_rows(_over_places(values))


def packed(parts: list[list[Mask]]) -> tf.Tensor:
    """`counts` of some parts of the positions together. Each mask has bits of its own in one int32, which is summed up over the
    parts and over blocks of rows, 1,023 positions in all."""
    values = reduce(tf.add, [_digits(masks) for masks in parts])
    most, neurons = (2**_BITS - 1) // len(parts), values.shape[-1]
    k = _divisor(values.shape, most)
    if k > 1:
        sums = tf.reduce_sum(tf.reshape(values, [-1, k, neurons]), 1)
    else:
        rows = tf.reshape(values, [-1, neurons])
        whole = tf.shape(rows)[0] // most * most
        blocks = tf.reduce_sum(tf.reshape(rows[:whole], [-1, most, neurons]), 1)
        sums = tf.concat([blocks, tf.reduce_sum(rows[whole:], 0, keepdims=True)], 0)
    shifts = tf.range(0, _BITS * len(parts[0]), _BITS)[:, None, None]
    each = tf.bitwise.bitwise_and(tf.bitwise.right_shift(sums[None], shifts), 2**_BITS - 1)
    return tf.reduce_sum(tf.cast(each, tf.int64), 1)


def _digits(masks: list[Mask]) -> tf.Tensor:
    """Of each position, the bits of all masks. A choice inside a choice, where masks end in the same one, costs XLA a third less."""
    last = masks[0][-1]
    inside: list[Any] = []
    outside: list[Any] = []
    for i, mask in enumerate(masks):
        within = mask[-1] is last
        rest, bit = mask[:-1] if within else mask, 1 << _BITS * i
        (inside if within else outside).append(tf.where(reduce(tf.logical_and, rest), bit, 0) if rest else bit)
    return reduce(tf.add, [tf.where(last, reduce(tf.add, inside), 0), *outside])


def parts_of(shape: tf.TensorShape) -> int:
    """In how many parts of equal size XLA takes the places of a sample: up to 8; 1 where their number is not known."""
    places = shape[1:-1].num_elements() if shape.rank > 2 else None
    return next(k for k in range(8, 0, -1) if (places or 1) % k == 0)


def in_bytes(shape: tf.TensorShape, axis: int, xla: bool | None) -> bool:
    large = shape.rank > 2 or shape[-1] >= WIDE
    return xla is False and axis != 1 and large and shape[-1] % 4 == 0 and not on_gpu()


def _bytes(mask: Mask) -> tf.Tensor:
    """A byte for each position: a quarter of what floats write and read."""
    neurons, k = mask[0].shape[-1], _divisor(mask[0].shape, _BYTE)
    fours = [tf.bitcast(tf.reshape(tf.cast(m, tf.uint8), [-1, neurons // 4, 4]), tf.int32) for m in mask]
    rows = reduce(tf.bitwise.bitwise_and, fours)
    if k > 1:
        sums = tf.reduce_sum(tf.reshape(rows, [-1, k, neurons // 4]), 1)
    else:
        sums = tf.math.segment_sum(rows, tf.range(tf.shape(rows)[0]) // _BYTE)
    return tf.reduce_sum(tf.cast(tf.reshape(tf.bitcast(sums, tf.uint8), [-1, neurons]), tf.int32), 0)


def _sums(mask: tf.Tensor, axis: int) -> tf.Tensor:
    if mask.shape.rank == 2 and axis != 1 and not on_gpu():
        return sum_rows(tf.cast(mask, tf.int32))
    values = tf.cast(mask, tf.float32)
    if mask.shape.rank == 2 and axis != 1 and (mask.shape[0] or 0) <= EXACT:
        return sum_rows(values)
    places = mask.shape[2:].num_elements() if axis == 1 else mask.shape[-2]
    if places is None or places > EXACT:
        values = tf.cast(mask, tf.int64)
    if axis == 1:
        return tf.reduce_sum(tf.cast(tf.reduce_sum(values, list(range(2, mask.shape.rank))), tf.int64), 0)
    return tf.reduce_sum(tf.cast(_over_places(values), tf.int64), 0)


def _over_places(values: tf.Tensor) -> tf.Tensor:
    """`(batch, ..., places, neurons)` -> `(rows, neurons)`: one sum over all axes is up to 10 times as slow in XLA."""
    if values.shape.rank == 2:
        return values
    return tf.reshape(tf.reduce_sum(values, -2), [-1, values.shape[-1]])


def sum_rows(values: tf.Tensor) -> tf.Tensor:
    """What the bias of a layer gets as its gradient: the fastest sum over rows that TensorFlow has."""
    return tf.raw_ops.BiasAddGrad(out_backprop=values)


def _divisor(shape: tf.TensorShape, most: int) -> int:
    """By how many places of a sample, at most, all of them can be divided; 1 where that is few, or not known.

    >>> [_divisor(tf.TensorShape([None, 30, n, 8]), 255) for n in (30, 509, None)]
    [225, 30, 1]
    """
    places = shape[1:-1].num_elements() if shape.rank > 2 else None
    k = next(k for k in range(min(places or 1, most), 0, -1) if (places or 1) % k == 0)
    return k if k >= 16 else 1


@cache
def on_gpu() -> bool:
    return bool(tf.config.list_logical_devices("GPU"))


def joined(parts: list[Any], axis: int = 0) -> Any:
    """Vectors of several layers as one."""
    return parts[0] if len(parts) == 1 else tf.concat(alike(*parts), axis)


def alike(*parts: Any) -> list[Any]:
    """Counts of one kind: int64 where some are."""
    return list(parts) if len({part.dtype for part in parts}) == 1 else [tf.cast(part, tf.int64) for part in parts]
