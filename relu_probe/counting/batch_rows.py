"""The number of rows of a tensor. That two tensors have equally many rows is proved in the graph, never assumed."""

from typing import Any

import tensorflow as tf

Rows = Any  # a number of rows: an int, or a scalar int64 tensor

_KEEP_ROWS = (
    *("Identity", "BiasAdd", "Cast", "StopGradient", "Softmax", "LogSoftmax", "PreventGradient"),
    *("Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Neg", "Abs", "Square"),
    *("Sqrt", "Rsqrt", "Exp", "Log", "Log1p", "Expm1", "Erf", "Sign", "Floor", "Round", "Reciprocal"),
    *("Conv2D", "Conv3D", "DepthwiseConv2dNative", "FusedBatchNormV3", "MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"),
)
ELEMENTWISE = ("AddV2", "Mul", "Sub", "Maximum", "Minimum", "RealDiv", "Pow", "SquaredDifference")
_MAY_KEEP_ROWS = ("MatMul", "StridedSlice", "Pad", "ConcatV2", "ExpandDims", "GatherV2", "Sum", "Mean", "Max", "Min")


def rows_of(tensor: tf.Tensor) -> Rows:
    """Returns the size of the first axis: an int if it is known, else an int64 scalar that all tensors of one batch share."""
    if tensor.shape[0] is not None:
        return int(tensor.shape[0])
    if tf.executing_eagerly():
        return tf.shape(tensor, tf.int64)[0]
    root, known = origin_of_rows(tensor), of_graph("rows")
    if id(root) not in known:
        known[id(root)] = (root, tf.shape(root, tf.int64)[0])
    return known[id(root)][1]


def tensors_of(data: Any) -> list[tf.Tensor]:
    """Returns the tensors of a batch."""
    return [leaf for leaf in tf.nest.flatten(data, expand_composites=True) if isinstance(leaf, tf.Tensor)]


def origin_of_rows(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the earliest tensor in the graph that provably has the same number of rows as `tensor`."""
    known, path = of_graph("origins"), []
    while id(tensor) not in known and (source := _source(tensor)) is not None:
        path.append(tensor)
        tensor = source
    _, origin = known.get(id(tensor), (tensor, tensor))
    known.update({id(each): (each, origin) for each in path})
    return origin


def of_graph(name: str) -> dict[int, Any]:
    """Returns a dictionary of the current graph, keyed by `id(tensor)`. Its values keep the tensors alive, so ids stay unique."""
    graph = tf.compat.v1.get_default_graph()
    kept = graph._relu_probe = getattr(graph, "_relu_probe", {})
    found: dict[int, Any] = kept.setdefault(name, {})
    return found


def _source(tensor: tf.Tensor) -> tf.Tensor | None:
    """Returns an input of the tensor's operation with the same number of rows; None if there is no proof."""
    op = tensor.op
    if op.type in ELEMENTWISE:
        return _full_operand(op)
    if op.type == "IdentityN":
        return op.inputs[tensor.value_index]
    return op.inputs[0] if op.type in _KEEP_ROWS or (op.type in _MAY_KEEP_ROWS and _keeps_rows(op)) else None


def _full_operand(op: tf.Operation) -> tf.Tensor | None:
    """Returns an operand of an elementwise operation that is not broadcast, if all such operands have the same rows."""
    if None in (ranks := [t.shape.rank for t in op.inputs]):
        return None
    own = [t for t in op.inputs if t.shape.rank == max(ranks) and t.shape[0] != 1]
    return own[0] if own and len({id(origin_of_rows(t)) for t in own}) == 1 else None


def _keeps_rows(op: tf.Operation) -> bool:
    """Whether an operation that may change the first axis leaves it as it is."""
    if op.type == "MatMul":
        return not op.get_attr("transpose_a")
    if op.type == "StridedSlice":
        return _takes_all_rows(op)
    if op.type == "Pad":
        padding = tf.get_static_value(op.inputs[1])
        return padding is not None and not padding[0].any()
    axes = tf.get_static_value(op.inputs[-1])  # of a concatenation, a reduction, a gathering or a new axis
    rank = op.outputs[0].shape.rank if op.type in ("ConcatV2", "ExpandDims") else op.inputs[0].shape.rank
    return axes is not None and bool(rank) and not (axes % rank == 0).any()


def _takes_all_rows(op: tf.Operation) -> bool:
    """Whether a slice leaves the first axis as it is: `x[:, 0]`, `x[..., 0]`."""
    ellipsis, strides = op.get_attr("ellipsis_mask"), tf.get_static_value(op.inputs[3])
    if strides is None or op.inputs[0].shape.rank is None:
        return False
    if ellipsis & 1:
        return len(strides) <= op.inputs[0].shape.rank
    moved = op.get_attr("shrink_axis_mask") | op.get_attr("new_axis_mask")
    whole = op.get_attr("begin_mask") & op.get_attr("end_mask") & ~moved & 1
    return bool(whole) and strides[0] == 1
