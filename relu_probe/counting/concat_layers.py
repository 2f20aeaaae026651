"""Concatenation of narrow layers, so that they are counted as one: in small models the number of operations costs most.

Outputs `(batch, neurons)` can be concatenated if they have the same batch. This is proved in the graph, never assumed, because a
failing operation would stop the training.
"""

from typing import Any

import tensorflow as tf

from relu_probe.counting.batch_rows import origin_of_rows
from relu_probe.counting.kernels import NARROW
from relu_probe.counting.passes import BackwardPass, CountedGradients, ForwardPass, pre_activation_gradient

Passes = list[ForwardPass | BackwardPass]


def concat_narrow_layers(passes: Passes) -> Passes:
    """Returns the passes, with the narrow layers of one batch concatenated."""
    groups: dict[Any, list[Passes]] = {}
    for keys in dict.fromkeys(each.keys for each in passes):
        layer = [each for each in passes if each.keys == keys]
        groups.setdefault(_group_of(layer) or keys, []).append(layer)
    return [each for group in groups.values() for each in _concat(group)]


def _group_of(layer: Passes) -> Any:
    """Returns what all layers of a group must have in common; None for a layer that cannot be concatenated."""
    first, *others = layer
    output = first.output
    if not isinstance(first, ForwardPass) or len(others) > 1 or tf.executing_eagerly():
        return None
    if not all(isinstance(each, BackwardPass) and each.output is output for each in others):
        return None
    if (
        output.shape.rank != 2
        or output.shape[1] > NARROW
        or first.source is not output
        or first.relu.ceiling is not None
    ):
        return None
    return id(origin_of_rows(output)), len(others), output.dtype, output.device


def _concat(group: list[Passes]) -> Passes:
    if len(group) == 1:
        return group[0]
    forward = [layer[0] for layer in group]
    keys = tuple(key for each in forward for key in each.keys)
    neurons = tuple(n for each in forward for n in each.neurons)
    gradients = [pre_activation_gradient(each) for layer in group for each in layer if isinstance(each, BackwardPass)]
    gradient = tf.concat(gradients, 1) if gradients else None
    # Concatenate after the backward pass. If this operation were ready earlier, TensorFlow would run the next layer on another
    # thread, which makes the step of a small model slower.
    with tf.control_dependencies([] if gradient is None else [gradient]):
        output, relu = tf.concat([each.output for each in forward], 1), forward[0].relu
    concatenated: Passes = [ForwardPass(keys, neurons, relu, output, output)]
    if gradient is not None:
        concatenated.append(BackwardPass(keys, neurons, relu, output, gradient, CountedGradients()))
    return concatenated
