"""The number of samples of a step that a layer saw: not the rows of its output, into which other axes may be folded.

The operations from the output back to the batch tell which samples reached the layer: all of the batch, a subset, or those of a batch
that the step made itself. They are those of the graph, or those that `EagerOperations` recorded of an eager step.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from relu_probe.counting.batch_rows import ELEMENTWISE, Rows, of_graph, origin_of_rows, rows_of, tensors_of
from relu_probe.counting.eager_operations import EagerOperations, static_value

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
        operations: the record of an eager step, in which the ids are those of recorded tensors; None in a graph.
    """

    size: Rows | None
    tensors: frozenset[int]
    ragged: frozenset[int]
    operations: EagerOperations | None = None

    @classmethod
    def of(cls, data: Any, operations: EagerOperations | None = None) -> "Batch":
        """Returns the batch that the argument of a training step is."""
        leaves = tf.nest.flatten(data)
        first = next(iter(leaves), None)
        find = operations.tensor if operations else lambda tensor: tensor
        tensors = [id(find(leaf)) for leaf in tensors_of(data)]
        ragged = [id(find(leaf.flat_values)) for leaf in leaves if isinstance(leaf, tf.RaggedTensor)]
        if isinstance(first, tf.RaggedTensor):
            size = first.nrows(tf.int64)
        else:
            size = rows_of(first) if isinstance(first, tf.Tensor) and first.shape.rank else None
        return cls(size, frozenset(tensors), frozenset(ragged), operations)


def samples_of(output: tf.Tensor, rows: Rows, places: int, batch: Batch) -> Rows:
    """Returns the number of samples that are in the output of a layer, at most the number of positions, `rows * places`."""
    origin = origin_of_rows(batch.operations.tensor(output) if batch.operations else output)
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
    """Returns the number of samples of a tensor in a graph, by those of the tensors that it is computed from."""
    known, pending = of_graph(tensor, "samples"), [origin_of_rows(tensor)]
    while pending:
        origin = pending[-1]
        inputs = [origin_of_rows(each) for each in _inputs_with_samples(origin, batch)]
        if unknown := [each for each in inputs if id(each) not in known]:
            pending += unknown
            continue
        known[id(origin)] = (origin, _samples_by_inputs(origin, [known[id(each)][1] for each in inputs], batch))
        pending.pop()
    return known[id(origin_of_rows(tensor))][1]


def _inputs_with_samples(origin: tf.Tensor, batch: Batch) -> list[tf.Tensor]:
    """Returns the inputs whose samples tell those of a tensor; [] if they do not."""
    op = origin.op
    if id(origin) in batch.ragged:
        return []
    if _joins_batches(op):
        return list(op.inputs[:-1])
    made_by_step = id(origin) in batch.tensors or batch.size is None or not _depends_on(origin, batch)
    return [] if made_by_step or op.type not in (*_SELECTIONS, *_SAME_SAMPLES) else [_main_input(op, batch)]


def _samples_by_inputs(origin: tf.Tensor, inputs: list[Rows], batch: Batch) -> Rows:
    """Returns the number of samples of a tensor.

    Args:
        origin: the tensor.
        inputs: the numbers of samples of `_inputs_with_samples`.
        batch: the batch of the step.
    """
    op = origin.op
    if id(origin) in batch.ragged:
        return batch.size
    if _joins_batches(op):
        return _sum(inputs)
    if inputs:
        selects = op.type in _SELECTIONS and origin_of_rows(_main_input(op, batch)).op.type not in _TIME_FIRST
        return smallest([rows_of(origin), *inputs]) if selects else inputs[0]
    # The step made a tensor that does not depend on the batch, such as the noise of a GAN.
    if id(origin) in batch.tensors or batch.size is None or not _depends_on(origin, batch):
        return rows_of(origin)
    return batch.size


def _joins_batches(op: tf.Operation) -> bool:
    return bool(op.type == "ConcatV2" and static_value(op.inputs[-1]) == 0)


def _main_input(op: tf.Operation, batch: Batch) -> tf.Tensor:
    """Returns the input, computed from the batch, that has the most axes: other inputs are broadcast, or select."""
    inputs = [each for each in op.inputs if _depends_on(each, batch)]
    return max(inputs, key=lambda each: (each.shape.rank or 0, each.shape[:1] != 1))


def _depends_on(tensor: tf.Tensor, batch: Batch) -> bool:
    """Whether a tensor is computed from the batch, not only from its size."""
    known, seen, pending = of_graph(tensor, "depends"), {id(tensor)}, [tensor]
    found = False
    while pending and not found:
        current = pending.pop()
        found = id(current) in batch.tensors or known.get(id(current), (None, False))[1]
        if id(current) not in known and current.op.type not in _SHAPES:
            new = [each for each in current.op.inputs if id(each) not in seen]
            seen.update(map(id, new))
            pending += new
    known[id(tensor)] = (tensor, found)
    return found


def _sum(numbers: list[Rows]) -> Rows:
    if all(isinstance(each, int) for each in numbers):
        return sum(numbers)
    return tf.add_n([tf.cast(each, tf.int64) for each in numbers])
