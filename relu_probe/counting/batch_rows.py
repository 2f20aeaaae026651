"""The number of rows of a tensor. That two tensors have equally many rows is proved in the graph, never assumed.

The tensors are those of a graph, or those that `EagerOperations` recorded.
"""

from typing import Any

import tensorflow as tf

from relu_probe.counting.eager_operations import static_value

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
    root, known = origin_of_rows(tensor), of_graph(tensor, "rows")
    if id(root) not in known:
        known[id(root)] = (root, tf.shape(root, tf.int64)[0])
    return known[id(root)][1]


def tensors_of(data: Any) -> list[tf.Tensor]:
    """Returns the tensors of a batch."""
    return [leaf for leaf in tf.nest.flatten(data, expand_composites=True) if isinstance(leaf, tf.Tensor)]


def origin_of_rows(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the earliest tensor in the graph that provably has the same number of rows as `tensor`."""
    known, pending = of_graph(tensor, "origins"), [tensor]
    while pending:  # without recursion, which a loop over a long sequence would carry too far
        current = pending[-1]
        inputs = _inputs_with_rows(current)
        if unknown := [each for each in inputs if id(each) not in known]:
            pending += unknown
            continue
        origins = {id(known[id(each)][1]): known[id(each)][1] for each in inputs}
        known[id(current)] = (current, current if len(origins) != 1 else origins.popitem()[1])
        pending.pop()
    return known[id(tensor)][1]


def of_graph(tensor: tf.Tensor, name: str) -> dict[int, Any]:
    """Returns a dictionary of the tensor's graph, keyed by `id(tensor)`. Its values keep the tensors alive, so ids stay unique."""
    graph = tensor.graph
    kept = graph._relu_probe = getattr(graph, "_relu_probe", {})
    found: dict[int, Any] = kept.setdefault(name, {})
    return found


def _inputs_with_rows(tensor: tf.Tensor) -> list[tf.Tensor]:
    """Returns the inputs of the tensor's operation that have the same number of rows, if they have the same origin."""
    op = tensor.op
    if op.type in ELEMENTWISE:
        ranks = [each.shape.rank for each in op.inputs]
        return [] if None in ranks else [t for t in op.inputs if t.shape.rank == max(ranks) and t.shape[0] != 1]
    if op.type == "IdentityN":
        return [op.inputs[tensor.value_index]]
    return [op.inputs[0]] if op.type in _KEEP_ROWS or (op.type in _MAY_KEEP_ROWS and _keeps_rows(op)) else []


def _keeps_rows(op: tf.Operation) -> bool:
    """Whether an operation that may change the first axis leaves it as it is."""
    if op.type == "MatMul":
        return not op.get_attr("transpose_a")
    if op.type == "StridedSlice":
        return _takes_all_rows(op)
    if op.type == "Pad":
        padding = static_value(op.inputs[1])
        return padding is not None and not padding[0].any()
    axes = static_value(op.inputs[-1])  # of a concatenation, a reduction, a gathering or a new axis
    rank = op.outputs[0].shape.rank if op.type in ("ConcatV2", "ExpandDims") else op.inputs[0].shape.rank
    return axes is not None and bool(rank) and not (axes % rank == 0).any()


def _takes_all_rows(op: tf.Operation) -> bool:
    """Whether a slice leaves the first axis as it is: `x[:, 0]`, `x[..., 0]`."""
    ellipsis, strides = op.get_attr("ellipsis_mask"), static_value(op.inputs[3])
    if strides is None or op.inputs[0].shape.rank is None:
        return False
    if ellipsis & 1:
        return len(strides) <= op.inputs[0].shape.rank
    moved = op.get_attr("shrink_axis_mask") | op.get_attr("new_axis_mask")
    whole = op.get_attr("begin_mask") & op.get_attr("end_mask") & ~moved & 1
    return bool(whole) and strides[0] == 1
