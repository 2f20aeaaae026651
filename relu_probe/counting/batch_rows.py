"""The number of rows of a tensor. That two tensors have equally many rows is proved in the graph, never assumed."""

from typing import Any

import tensorflow as tf

_KEEP_ROWS = (
    *("Identity", "IdentityN", "Relu", "Relu6", "BiasAdd", "MatMul", "Cast", "StopGradient"),
    *("Conv2D", "Conv3D", "DepthwiseConv2dNative", "FusedBatchNormV3", "MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"),
)
_ELEMENTWISE = ("AddV2", "Mul", "Sub", "Maximum", "Minimum", "RealDiv")


def rows_of(tensor: tf.Tensor) -> Any:
    """Returns the size of the first axis: an int if it is known, else an int64 scalar that all tensors of one batch share."""
    if tensor.shape[0] is not None:
        return int(tensor.shape[0])
    if tf.executing_eagerly():
        return tf.shape(tensor, tf.int64)[0]
    root, known = origin_of_rows(tensor), _of_graph("rows")
    if id(root) not in known:
        known[id(root)] = (root, tf.shape(root, tf.int64)[0])
    return known[id(root)][1]


def batch_size(data: Any) -> Any:
    """Returns the number of samples of a batch, an int if it is known statically; None if the batch does not show it."""
    first = next(iter(tf.nest.flatten(data)), None)
    if isinstance(first, tf.RaggedTensor):
        return first.nrows(tf.int64)
    return rows_of(first) if isinstance(first, tf.Tensor) and first.shape.rank else None


def tensors_of(data: Any) -> list[tf.Tensor]:
    """Returns the tensors of a batch."""
    return [leaf for leaf in tf.nest.flatten(data, expand_composites=True) if isinstance(leaf, tf.Tensor)]


def origin_of_rows(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the earliest tensor in the graph that provably has the same number of rows as `tensor`."""
    known, path = _of_graph("origins"), []
    while id(tensor) not in known and (source := _source(tensor)) is not None:
        path.append(tensor)
        tensor = source
    _, origin = known.get(id(tensor), (tensor, tensor))
    known.update({id(each): (each, origin) for each in path})
    return origin


def _of_graph(name: str) -> dict[int, Any]:
    """Returns a dictionary of the current graph, keyed by `id(tensor)`. Its values keep the tensors alive, so ids stay unique."""
    graph = tf.compat.v1.get_default_graph()
    kept = graph._relu_probe = getattr(graph, "_relu_probe", {})
    found: dict[int, Any] = kept.setdefault(name, {})
    return found


def _source(tensor: tf.Tensor) -> tf.Tensor | None:
    """Returns an input of the tensor's operation with the same number of rows; None if there is no proof."""
    op = tensor.op
    if op.type == "ConcatV2":
        axis = tf.get_static_value(op.inputs[-1])
        return None if axis is None or axis % (tensor.shape.rank or 1) == 0 else op.inputs[0]
    if op.type == "Pad":
        padding = tf.get_static_value(op.inputs[1])
        return None if padding is None or padding[0].any() else op.inputs[0]
    if op.type == "MatMul" and op.get_attr("transpose_a"):
        return None
    if op.type in _KEEP_ROWS:
        return op.inputs[tensor.value_index if op.type == "IdentityN" else 0]
    if op.type in _ELEMENTWISE and None not in (ranks := [t.shape.rank for t in op.inputs]):
        own = [t for t in op.inputs if t.shape.rank == max(ranks) and t.shape[0] != 1]  # all others are broadcast
        return own[0] if own and len({id(origin_of_rows(t)) for t in own}) == 1 else None
    return None
