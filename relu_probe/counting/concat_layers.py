"""Which narrow layers can be counted side by side? On small models it is the number of operations that costs.

Outputs `(batch, neurons)` can be joined where their batches are the same: proved in the graph, never assumed, since a
failing operation would stop a training.
"""

from typing import Any

import tensorflow as tf

from relu_probe.counting.passes import BackwardPass, ForwardPass, flow
from relu_probe.counting.rows import earliest

_NARROW = 128  # neurons of a layer


def side_by_side(tallies: list[ForwardPass | BackwardPass]) -> list[ForwardPass | BackwardPass]:
    """The same tallies, those of narrow layers of one batch joined."""
    groups: dict[Any, list[list[ForwardPass | BackwardPass]]] = {}
    for keys in dict.fromkeys(tally.keys for tally in tallies):
        calls = [tally for tally in tallies if tally.keys == keys]
        groups.setdefault(_kind(calls) or keys, []).append(calls)
    return [tally for group in groups.values() for tally in _join(group)]


def _kind(calls: list[ForwardPass | BackwardPass]) -> Any:
    """What layers must share; None for a layer that stands alone."""
    first, *backward = calls
    output = first.output
    if not isinstance(first, ForwardPass) or len(backward) > 1 or any(b.output is not output for b in backward):
        return None
    if not hasattr(output, "op") or tf.executing_eagerly() or output.shape.rank != 2 or output.shape[1] > _NARROW:
        return None
    if (
        first.source is not output
        or first.relu.ceiling is not None
        or any(isinstance(b, ForwardPass) for b in backward)
    ):
        return None
    return id(earliest(output)), len(backward), output.dtype, output.device


def _join(group: list[list[ForwardPass | BackwardPass]]) -> list[ForwardPass | BackwardPass]:
    if len(group) == 1:
        return group[0]
    first = [calls[0] for calls in group]
    keys, neurons = (tuple(sum((getattr(call, name) for call in first), ())) for name in ("keys", "neurons"))
    gradients = [flow(call) for calls in group for call in calls if isinstance(call, BackwardPass)]
    gradient = tf.concat(gradients, 1) if gradients else None
    # Not before the backward pass: TensorFlow hands the next layer to another thread where something else can be done, which
    # takes a small model longer.
    with tf.control_dependencies([] if gradient is None else [gradient]):
        output, relu = tf.concat([call.output for call in first], 1), first[0].relu
    joined: list[ForwardPass | BackwardPass] = [ForwardPass(keys, neurons, relu, output, output)]
    if gradient is not None:
        joined.append(BackwardPass(keys, neurons, relu, output, gradient, []))
    return joined
