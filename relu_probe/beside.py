"""Which narrow layers can be counted side by side? On small models it is the number of operations that costs.

Outputs `(batch, neurons)` can be joined where their batches are the same: proved in the graph, never assumed, since a
failing operation would stop a training.
"""

from typing import Any

import tensorflow as tf

from relu_probe.tallies import NARROW, Backward, Forward, flow

_KEEP_ROWS = ("Identity", "IdentityN", "Relu", "Relu6", "BiasAdd", "MatMul", "Cast", "StopGradient")
_ELEMENTWISE = ("AddV2", "Mul", "Sub", "Maximum", "Minimum", "RealDiv")


def side_by_side(tallies: list[Forward | Backward]) -> list[Forward | Backward]:
    """The same tallies, those of narrow layers of one batch joined."""
    groups: dict[Any, list[list[Forward | Backward]]] = {}
    for keys in dict.fromkeys(tally.keys for tally in tallies):
        calls = [tally for tally in tallies if tally.keys == keys]
        groups.setdefault(_kind(calls) or keys, []).append(calls)
    return [tally for group in groups.values() for tally in _join(group)]


def _kind(calls: list[Forward | Backward]) -> Any:
    """What layers must share; None for a layer that stands alone."""
    first, *backward = calls
    output = first.output
    if not isinstance(first, Forward) or len(backward) > 1 or any(b.output is not output for b in backward):
        return None
    if not hasattr(output, "op") or tf.executing_eagerly() or output.shape.rank != 2 or output.shape[1] > NARROW:
        return None
    if first.source is not output or first.relu.ceiling is not None or any(isinstance(b, Forward) for b in backward):
        return None
    return id(_rows_of(output)), len(backward), output.dtype, output.device


def _rows_of(tensor: tf.Tensor) -> tf.Tensor:
    """The earliest tensor in the graph that certainly has as many rows."""
    while (source := _source(tensor)) is not None:
        tensor = source
    return tensor


def _source(tensor: tf.Tensor) -> tf.Tensor | None:
    op = tensor.op
    if op.type == "MatMul" and op.get_attr("transpose_a"):
        return None
    if op.type in _KEEP_ROWS:
        return op.inputs[tensor.value_index if op.type == "IdentityN" else 0]
    if op.type in _ELEMENTWISE:  # where all others are broadcast
        rows = [t for t in op.inputs if t.shape.rank == 2 and t.shape[0] != 1]
        known = all(t.shape.rank in (0, 1, 2) for t in op.inputs)
        return rows[0] if known and len(rows) == 1 else None
    return None


def _join(group: list[list[Forward | Backward]]) -> list[Forward | Backward]:
    if len(group) == 1:
        return group[0]
    first = [calls[0] for calls in group]
    keys, neurons = (tuple(sum((getattr(call, name) for call in first), ())) for name in ("keys", "neurons"))
    output, relu = tf.concat([call.output for call in first], 1), first[0].relu
    joined: list[Forward | Backward] = [Forward(keys, neurons, relu, output, output)]
    if len(group[0]) > 1:
        gradient = tf.concat([flow(call) for calls in group for call in calls if isinstance(call, Backward)], 1)
        joined.append(Backward(keys, neurons, relu, output, gradient, []))
    return joined
