"""How many rows has a tensor? Two that come from one batch have as many: proved in the graph, never assumed."""

from typing import Any

import tensorflow as tf

_KEEP_ROWS = ("Identity", "IdentityN", "Relu", "Relu6", "BiasAdd", "MatMul", "Cast", "StopGradient")
_ELEMENTWISE = ("AddV2", "Mul", "Sub", "Maximum", "Minimum", "RealDiv")


def rows(tensor: tf.Tensor) -> Any:
    """The size of the first axis: an int where it is known, else one and the same tensor for all that come from one batch."""
    if tensor.shape[0] is not None:
        return int(tensor.shape[0])
    if tf.executing_eagerly():
        return tf.shape(tensor, tf.int64)[0]
    root, graph = earliest(tensor), tf.compat.v1.get_default_graph()
    known = graph._relu_probe_rows = getattr(graph, "_relu_probe_rows", {})  # goes with the graph
    if id(root) not in known:
        known[id(root)] = (root, tf.shape(root, tf.int64)[0])
    return known[id(root)][1]


def earliest(tensor: tf.Tensor) -> tf.Tensor:
    """The earliest tensor in the graph that certainly has as many rows."""
    while (source := _source(tensor)) is not None:
        tensor = source
    return tensor


def _source(tensor: tf.Tensor) -> tf.Tensor | None:
    op = tensor.op
    if op.type == "ConcatV2" and tensor.shape.rank == 2:  # of several layers' outputs, side by side
        return op.inputs[0] if tf.get_static_value(op.inputs[-1]) == 1 else None
    if op.type == "MatMul" and op.get_attr("transpose_a"):
        return None
    if op.type in _KEEP_ROWS:
        return op.inputs[tensor.value_index if op.type == "IdentityN" else 0]
    if op.type in _ELEMENTWISE:  # where all others are broadcast
        rows = [t for t in op.inputs if t.shape.rank == 2 and t.shape[0] != 1]
        known = all(t.shape.rank in (0, 1, 2) for t in op.inputs)
        return rows[0] if known and len(rows) == 1 else None
    return None
