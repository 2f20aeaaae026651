"""The number of samples of a step that a layer saw: not the rows of its output, into which other axes may be folded.

In a graph, the operations from the output back to the batch tell which samples reached the layer: all of the batch, a subset, or those
of a batch that the step made itself. In eager mode only the numbers of rows are known: a layer that gets more rows than the batch is
taken to see all its samples, and no others.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from relu_probe.counting.batch_rows import ELEMENTWISE, Rows, of_graph, origin_of_rows, rows_of

# Operations whose output has the samples of an input, though not always in the same rows.
_SAME_SAMPLES = (
    *("Reshape", "Transpose", "ExpandDims", "Squeeze", "Tile", "BroadcastTo", "Pack", "Unpack", "ReverseV2"),
    *(
        "RandomShuffle",
        "BatchMatMulV2",
        "BatchMatMulV3",
        "Einsum",
        "SpaceToBatchND",
        "BatchToSpaceND",
        "ConcatV2",
        "SelectV2",
    ),
    *ELEMENTWISE,
)
# Operations that select some of the samples.
_SELECTIONS = ("StridedSlice", "Slice", "GatherV2", "GatherNd", "DynamicPartition", "Split", "SplitV")
# Operations that make tensors whose first axis may be another one than that of the samples.
_TIME_FIRST = ("Transpose", "TensorListStack", "Pack")
_SHAPES = ("Shape", "ShapeN", "Size")  # tell how many samples there are, and nothing of them


class Batch(NamedTuple):
    """The batch of a step.

    Args:
        size: the number of its samples, an int if it is known statically; None if the batch does not show it.
        tensors: the ids of its tensors, components of ragged ones among them.
        ragged: the ids of the values of its ragged tensors, whose rows are no samples.
    """

    size: Rows | None
    tensors: frozenset[int]
    ragged: frozenset[int]

    @classmethod
    def of(cls, data: Any) -> "Batch":
        """Returns the batch that the argument of a training step is."""
        leaves = tf.nest.flatten(data)
        first = next(iter(leaves), None)
        tensors = [id(leaf) for leaf in tf.nest.flatten(data, expand_composites=True)]
        ragged = [id(leaf.flat_values) for leaf in leaves if isinstance(leaf, tf.RaggedTensor)]
        if isinstance(first, tf.RaggedTensor):
            size = first.nrows(tf.int64)
        else:
            size = rows_of(first) if isinstance(first, tf.Tensor) and first.shape.rank else None
        return cls(size, frozenset(tensors), frozenset(ragged))


def samples_of(output: tf.Tensor, rows: Rows, places: int, batch: Batch) -> Rows:
    """Returns the number of samples that are in the output of a layer, at most the number of positions, `rows * places`."""
    if tf.executing_eagerly():
        return rows_of(output) if batch.size is None else smallest([rows_of(output), batch.size])
    origin = origin_of_rows(output)
    samples = _samples(origin, batch)
    if samples is rows_of(origin):
        return samples
    hidden = origin.op.type not in (*_SELECTIONS, *_SAME_SAMPLES)  # it may have selected some of the samples
    return smallest([samples, rows * places, *([rows_of(origin)] if hidden else [])])


def largest(numbers: list[Rows]) -> Rows:
    """Returns the largest of these numbers, an int if all are."""
    if all(isinstance(each, int) for each in numbers):
        return max(numbers)
    if len({id(each) for each in numbers}) == 1:
        return numbers[0]
    return tf.reduce_max([tf.cast(each, tf.int64) for each in numbers])


def smallest(numbers: list[Rows]) -> Rows:
    """Returns the smallest of these numbers, an int if all are."""
    distinct = list({id(each): each for each in numbers}.values())
    if all(isinstance(each, int) for each in distinct):
        return min(distinct)
    return distinct[0] if len(distinct) == 1 else tf.reduce_min([tf.cast(each, tf.int64) for each in distinct])


def _samples(tensor: tf.Tensor, batch: Batch) -> Rows:
    """Returns the number of samples of a tensor in a graph."""
    known, origin = of_graph("samples"), origin_of_rows(tensor)
    if id(origin) not in known:
        known[id(origin)] = (origin, _find_samples(origin, batch))
    return known[id(origin)][1]


def _find_samples(origin: tf.Tensor, batch: Batch) -> Rows:
    op = origin.op
    if id(origin) in batch.ragged:
        return batch.size
    if op.type == "ConcatV2" and tf.get_static_value(op.inputs[-1]) == 0:
        return _sum([_samples(each, batch) for each in op.inputs[:-1]])
    # The step made a tensor that does not depend on the batch, such as the noise of a GAN.
    if id(origin) in batch.tensors or batch.size is None or not _depends_on(origin, batch):
        return rows_of(origin)
    if op.type not in (*_SELECTIONS, *_SAME_SAMPLES):
        return batch.size
    source = _main_input(op, batch)
    selects = op.type in _SELECTIONS and origin_of_rows(source).op.type not in _TIME_FIRST
    return smallest([rows_of(origin), _samples(source, batch)]) if selects else _samples(source, batch)


def _main_input(op: tf.Operation, batch: Batch) -> tf.Tensor:
    """Returns the input, computed from the batch, that has the most axes: other inputs are broadcast, or select."""
    inputs = [each for each in op.inputs if _depends_on(each, batch)]
    return max(inputs, key=lambda each: (each.shape.rank or 0, each.shape[:1] != 1))


def _depends_on(tensor: tf.Tensor, batch: Batch) -> bool:
    """Whether a tensor is computed from the batch, not only from its size."""
    known = of_graph("depends")
    if id(tensor) in known:
        return bool(known[id(tensor)][1])
    seen, pending = {id(tensor)}, [tensor]
    while pending:
        current = pending.pop()
        if id(current) in batch.tensors:
            break
        new = [] if current.op.type in _SHAPES else [each for each in current.op.inputs if id(each) not in seen]
        seen.update(map(id, new))
        pending += new
    else:
        current = None
    known[id(tensor)] = (tensor, current is not None)
    return current is not None


def _sum(numbers: list[Rows]) -> Rows:
    if all(isinstance(each, int) for each in numbers):
        return sum(numbers)
    return tf.add_n([tf.cast(each, tf.int64) for each in numbers])
