"""Counting kernels: the number of positions of each neuron at which a mask is True, exact and in few passes over memory.

Time goes into writing and rereading memory and, in small models, into the number of operations. `plan` chooses the method:

| method | used for                                      | how                                          | gain, two masks on 2 CPU cores      |
| ------ | --------------------------------------------- | -------------------------------------------- | ----------------------------------- |
| packed | XLA                                           | ten bits of an int32 per mask: a single pass | 0.5 of `rows` for (1024, 1024); in  |
|        |                                               |                                              | parts 0.07 of `sums` for images     |
| bytes  | CPU; `(batch, ..., neurons)`, `WIDE` layers   | a byte per position, four neurons an int32   | 0.8 of `sums` for (64, 30, 30, 32); |
|        |                                               |                                              | 0.7 of `rows` for (1024, 1024)      |
| places | CPU; images, not `LARGE_IMAGE`, many layers   | the gradient of a bias, for each mask        | a third of the operations of        |
|        |                                               |                                              | `bytes`, 1.0 of its time for (32,   |
|        |                                               |                                              | 8, 8, 256); see `SharedFunctions`   |
| rows   | other `(batch, neurons)`                      | the same for both masks together             | the fewest operations               |
| sums   | everything else, such as `channels_first`     | `reduce_sum`                                 |                                     |
"""

from collections.abc import Callable
from functools import cache, reduce
from typing import Any

import tensorflow as tf

from relu_probe.counting.shared_constants import shared_constant

EXACT = 2**24  # float32 counts exactly up to this number
NARROW = 128  # neurons up to which layers of one batch are concatenated
INDEXED = 2048  # neurons of a block, up to which the step of the last activity is written by index
WIDE = 256  # neurons from which `(batch, neurons)` is counted in bytes, and NaN are tested for before they are located
# Neurons from which `(batch, neurons)` is counted in quarters of a batch. The peak memory of a fit of a million neurons with `log_dir`
# is then 190 MB above that without a probe, with whole batches up to 268; a step takes 1.06 times as long as with whole batches.
VERY_WIDE = 2**19
LARGE_IMAGE = 2**14  # values of a sample, above which images are counted in bytes even if there are many layers
_BITS = 10  # bits of an int32 for each of at most three masks
_BYTE = 255  # the number of rows that a byte can count

Mask = list[tf.Tensor]  # bool tensors `(batch, ..., neurons)`; the mask is True where all of them are
Way = Callable[[list[Mask], int], list[tf.Tensor]]


def plan(shape: tf.TensorShape, axis: int, xla: bool | None, many_layers: bool = False) -> Way:
    """Returns the function that counts the masks of an output.

    Args:
        shape: the shape of the output.
        axis: the axis of the neurons, -1 or 1.
        xla: whether XLA compiles the counting; None if that is not known.
        many_layers: whether so many layers are counted that the number of operations matters more than their time.

    Returns:
        A function of `(masks, axis)` for at most three masks. It returns the counts of each mask, `(neurons,)`, or one tensor with
        those of all masks, `(masks * neurons,)`; int32, int64 or float32, which is exact up to `exact_up_to` positions.
    """
    if axis == 1:
        return sums
    if xla:
        return packed
    if xla is False and not on_gpu():
        if many_layers and shape.rank > 2 and (shape[1:].num_elements() or 2**62) <= LARGE_IMAGE:
            return places
        in_fours = shape[-1] % 4 == 0 or (shape.rank == 2 and shape[-1] >= VERY_WIDE)
        if (shape.rank > 2 or shape[-1] >= WIDE) and in_fours:
            return in_bytes
    return rows if shape.rank == 2 else sums


def exact_up_to(output: tf.Tensor, axis: int, xla: bool | None) -> int:
    """Returns the number of positions up to which the counts of such an output are exact."""
    in_floats = plan(output.shape, axis, xla) is rows and on_gpu()
    return EXACT if in_floats and output.shape[0] is None else 2**62


def rows(masks: list[Mask], axis: int) -> list[tf.Tensor]:
    """Counts masks `(batch, neurons)`; int32, but float32 on a GPU, where TensorFlow keeps int32 on the host."""
    dtype = tf.float32 if on_gpu() and (masks[0][0].shape[0] or 0) <= EXACT else tf.int32
    whole = [reduce(tf.logical_and, mask) for mask in masks]
    return [sum_rows(tf.cast(concat(whole, 1), dtype))]


def places(masks: list[Mask], axis: int) -> list[tf.Tensor]:
    """Counts masks `(batch, ..., neurons)` on a CPU; int32. Masks with the same last tensor share its cast."""
    last = {id(mask[-1]): mask[-1] for mask in masks}
    ones = {key: tf.cast(each, tf.int32) for key, each in last.items()}
    zero = shared_constant(0, tf.int32, masks[0][0])

    def count(mask: Mask) -> tf.Tensor:
        return sum_rows(reduce(lambda values, where: tf.where(where, values, zero), mask[:-1], ones[id(mask[-1])]))

    return [count(mask) for mask in masks]


def sums(masks: list[Mask], axis: int) -> list[tf.Tensor]:
    """Counts masks of any shape; int64."""
    return [_sum(reduce(tf.logical_and, mask), axis) for mask in masks]


def packed(masks: list[Mask], axis: int) -> list[tf.Tensor]:
    """Counts all masks in one pass, for XLA; int64."""
    return [packed_parts([masks])]


def packed_parts(parts: list[list[Mask]]) -> tf.Tensor:
    """Counts several parts of the positions together; int64.

    Each mask has its own bits in one int32. The int32 are summed over the parts and over blocks of rows, at most 1,023 positions.
    XLA vectorizes a sum over parts, but not a sum over many rows.
    """
    values = reduce(tf.add, [_digits(masks) for masks in parts])
    most, neurons = (2**_BITS - 1) // len(parts), values.shape[-1]
    block = _block_of_places(values.shape, most)
    if block > 1:
        blocks = tf.reduce_sum(tf.reshape(values, [-1, block, neurons]), 1)
    else:
        (blocks,) = _sums_of_blocks([tf.reshape(values, [-1, neurons])], most)
    shifts = tf.range(0, _BITS * len(parts[0]), _BITS)[:, None, None]
    each = tf.bitwise.bitwise_and(tf.bitwise.right_shift(blocks[None], shifts), 2**_BITS - 1)
    return tf.reshape(tf.reduce_sum(tf.cast(each, tf.int64), 1), [-1])


def in_bytes(masks: list[Mask], axis: int) -> list[tf.Tensor]:
    """Counts with one byte per position, which moves a quarter of the memory that floats would; int32."""
    first = masks[0][0]
    # In a function that serves layers of all shapes, no argument may tell the width: a constant one would make TensorFlow
    # specialize the function for each call, and optimize each copy.
    neurons = tf.shape(first)[-1] if first.shape.rank is None else first.shape[-1]
    tensors = {id(each): each for mask in masks for each in mask}
    missing = 0 if first.shape.rank is None else -neurons % 4
    if missing:
        tensors = {key: tf.pad(each, [[0, 0], [0, missing]]) for key, each in tensors.items()}
    fours = {key: _four_neurons(each, (neurons + missing) // 4) for key, each in tensors.items()}
    together = [reduce(tf.bitwise.bitwise_and, [fours[id(each)] for each in mask]) for mask in masks]
    counts = [_count_bytes(each) for each in _sums_of_blocks(together, _BYTE)]
    return [each[:neurons] for each in counts] if missing else counts


def _four_neurons(mask: tf.Tensor, quarter: Any) -> tf.Tensor:
    """Returns `(rows, quarter)` int32, each of four bytes that are 0 or 1."""
    return tf.bitcast(tf.reshape(tf.cast(mask, tf.uint8), [-1, quarter, 4]), tf.int32)


def _count_bytes(blocks: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.reduce_sum(tf.cast(tf.bitcast(blocks, tf.uint8), tf.int32), 0), [-1])


def _sums_of_blocks(tensors: list[tf.Tensor], size: int) -> list[tf.Tensor]:
    """Sums blocks of `size` rows of tensors of one shape: `(rows, n)` -> `(blocks, n)`.

    The number of rows may be unknown in the graph. The full blocks are not copied; the last block has the remaining rows.
    """
    rows, width = (tf.shape(tensors[0])[i] if known is None else known for i, known in enumerate(tensors[0].shape))
    whole, sums = rows // size * size, []
    for each in tensors:
        full, rest = tf.split(each, [whole, rows - whole])
        blocks = tf.reduce_sum(tf.reshape(full, [-1, size, width]), 1)
        sums.append(tf.concat([blocks, tf.reduce_sum(rest, 0, keepdims=True)], 0))
    return sums


def _digits(masks: list[Mask]) -> tf.Tensor:
    """Returns the bits of all masks at each position. Masks with the same last tensor share a `tf.where`, a third less for XLA."""
    last = masks[0][-1]
    inside: list[Any] = []
    outside: list[Any] = []
    for i, mask in enumerate(masks):
        shares = mask[-1] is last
        rest, bit = mask[:-1] if shares else mask, 1 << _BITS * i
        (inside if shares else outside).append(tf.where(reduce(tf.logical_and, rest), bit, 0) if rest else bit)
    return reduce(tf.add, [tf.where(last, reduce(tf.add, inside), 0), *outside])


def parts_of(shape: tf.TensorShape) -> int:
    """Returns the number of parts, up to 8, into which XLA divides the places of a sample; 1 if their number is not known."""
    return _largest_divisor(shape, 8)


def _block_of_places(shape: tf.TensorShape, most: int) -> int:
    """Returns how many places of a sample are summed together, at most `most`; 1 if they would be under 16 or are not known.

    >>> [_block_of_places(tf.TensorShape([None, 30, n, 8]), 255) for n in (30, 509, None)]
    [225, 30, 1]
    """
    block = _largest_divisor(shape, most)
    return block if block >= 16 else 1


def _largest_divisor(shape: tf.TensorShape, most: int) -> int:
    """Returns the largest divisor, up to `most`, of the number of places of a sample; 1 if that number is not known."""
    places = (shape[1:-1].num_elements() if shape.rank > 2 else None) or 1
    return next(k for k in range(min(places, most), 0, -1) if places % k == 0)


def _sum(mask: tf.Tensor, axis: int) -> tf.Tensor:
    """Returns the counts `(neurons,)` int64. The places of one sample are summed in floats, which is fast, if it is exact."""
    places = mask.shape[2:].num_elements() if axis == 1 else mask.shape[-2]
    values = tf.cast(mask, tf.float32 if places is not None and places <= EXACT else tf.int64)
    if axis == 1:
        return tf.reduce_sum(tf.cast(tf.reduce_sum(values, list(range(2, mask.shape.rank))), tf.int64), 0)
    return tf.reduce_sum(tf.cast(sum_places(values), tf.int64), 0)


def sum_places(values: tf.Tensor) -> tf.Tensor:
    """Sums `(batch, ..., places, neurons)` to `(rows, neurons)`: in XLA, one sum over all axes takes up to 10 times as long."""
    if values.shape.rank == 2:
        return values
    return tf.reshape(tf.reduce_sum(values, -2), [-1, values.shape[-1]])


def sum_rows(values: tf.Tensor) -> tf.Tensor:
    """Sums over rows by the gradient of a bias, TensorFlow's fastest way."""
    return tf.raw_ops.BiasAddGrad(out_backprop=values)


@cache
def on_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def concat(parts: list[Any], axis: int = 0) -> Any:
    """Returns the concatenated parts; int64 if their types differ."""
    if len({part.dtype for part in parts}) > 1:
        parts = [tf.cast(part, tf.int64) for part in parts]
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis)
