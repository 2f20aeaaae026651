"""What happened in one call of a layer? What it gave, what came back, and at how many positions of each neuron."""

from functools import reduce
from typing import NamedTuple

import tensorflow as tf

from relu_probe.counting.kernels import FEW, Mask, counts, packed, parts_of, sum_rows, vector
from relu_probe.structure.relu_layers import ReluLayer


class ForwardPass(NamedTuple):
    """One call of a layer, or of several whose outputs stand side by side."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]
    relu: ReluLayer  # the first of them
    output: tf.Tensor
    source: tf.Tensor  # where NaN are looked for: the output, or the pre-activation


class BackwardPass(NamedTuple):
    """One backward pass through one call."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]
    relu: ReluLayer
    output: tf.Tensor  # of the call
    gradient: tf.Tensor  # as it is passed on
    call: list[tf.Tensor]  # the positions of this call that are counted already: a second tape adds only new ones


LayerCall = list[ForwardPass | BackwardPass]  # the one output, and the backward passes to it


def flow(tally: BackwardPass) -> tf.Tensor:
    """dL/dz where the graph shows it, else dL/da: they differ where the neuron is off. (What nobody reads but the ReLU's own
    backward pass, TensorFlow overwrites with its result instead of taking new memory.)"""
    if not tf.executing_eagerly() and tally.relu.ceiling is None:
        for op in tally.gradient.consumers():
            if op.type == "ReluGrad" and op.inputs[0] is tally.gradient and op.inputs[1] is tally.output:
                return op.outputs[0]
    return tally.gradient


def masks_of(call: LayerCall) -> tuple[Mask, Mask]:
    """Where it is active, and where a gradient arrives; empty where there was no call, or no backward pass."""
    fires = call[0].output > 0
    flows = [_new(t) for t in call if isinstance(t, BackwardPass)]
    return (
        [fires] if any(isinstance(t, ForwardPass) for t in call) else [],
        # dL/dz = dL/da * relu'(z) is zero where the neuron is off, even where dL/da is infinite.
        [reduce(tf.logical_or, flows), fires] if flows else [],
    )


def nan_mask(call: LayerCall) -> Mask:
    return [tf.math.is_nan(t.source) for t in call if isinstance(t, ForwardPass)]


def call_counts(call: LayerCall, axis: int, xla: bool | None) -> tf.Tensor:
    """What it adds, `(3, neurons)`: positions active, with a gradient and NaN."""
    if _sums_show_nan(call, axis, xla):
        active, with_gradient = (vector(mask, axis) for mask in masks_of(call))
        return tf.stack([active, with_gradient, tf.cast(tf.math.is_nan(sum_rows(call[0].output)), active.dtype)])
    parts = [[*masks_of(part), nan_mask(part)] for part in (_parts(call) if xla and axis != 1 else [call])]
    there = [[mask for mask in masks if mask] for masks in parts]
    found = packed(there) if len(there) > 1 else counts(there[0], axis, xla)
    if all(parts[0]):
        return found
    each = iter(tf.unstack(found))
    return tf.stack([next(each) if mask else tf.zeros_like(found[0]) for mask in parts[0]])


def _sums_show_nan(call: LayerCall, axis: int, xla: bool | None) -> bool:
    """What a ReLU gives is never negative: the sum of a neuron's values is NaN where one of them is, and only there. It is
    that there are NaN which is read, not how many."""
    forward, *backward = call
    shape = forward.output.shape
    return (
        isinstance(forward, ForwardPass)
        and len(backward) > 0
        and forward.source is forward.output
        and xla is False
        and shape.rank == 2
        and axis != 1
        and shape[1] >= FEW
    )


def _parts(call: LayerCall) -> list[LayerCall]:
    """The call on some of the places of each sample, and on the others."""
    k = parts_of(call[0].output.shape)
    seen: list[list[tf.Tensor]] = [[] for _ in range(k)]
    return [call] if k == 1 else [list(part) for part in zip(*(_split(tally, seen) for tally in call))]


def _split(tally: ForwardPass | BackwardPass, seen: list[list[tf.Tensor]]) -> list[ForwardPass | BackwardPass]:
    shape = tally.output.shape
    apart = [len(seen), shape[1:-1].num_elements() // len(seen), shape[-1]]
    outputs, others = (
        tf.unstack(tf.reshape(x, [-1, *apart]), axis=1)
        for x in (tally.output, tally.source if isinstance(tally, ForwardPass) else flow(tally))
    )
    if isinstance(tally, ForwardPass):
        return [tally._replace(output=output, source=source) for output, source in zip(outputs, others)]
    return [tally._replace(output=a, gradient=g, call=call) for a, g, call in zip(outputs, others, seen)]


def _new(tally: BackwardPass) -> tf.Tensor:
    """Where a gradient arrives, and was not counted yet. At the ceiling of a bounded ReLU relu'(z) is zero, too."""
    flows, ceiling = tf.cast(flow(tally), tf.bool), tally.relu.ceiling  # != 0, in one thread
    if ceiling is not None:
        flows &= tally.output != tf.cast(ceiling, tally.output.dtype)
    before = [mask for mask in tally.call if tf.executing_eagerly() or mask.graph is flows.graph]
    tally.call.append(flows | before[-1] if before else flows)
    return flows & ~before[-1] if before else flows
