"""What does one call of a layer add to the counts? What the calls of one step found, layer by layer, as tensors."""

from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.kernels import Mask, counts, joined, most, on_gpu, total
from relu_probe.relus import ReluLayer
from relu_probe.rows import rows

NARROW = 128  # neurons; of narrow layers it is the number of operations that costs, of others the values
_CALLS = ("If", "StatelessIf", "While", "StatelessWhile", "PartitionedCall", "Case", "StatelessCase")


class Forward(NamedTuple):
    """One call of a layer, or of several whose outputs stand side by side."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]
    relu: ReluLayer  # the first of them
    output: tf.Tensor
    source: tf.Tensor  # where NaN are looked for: the output, or the pre-activation


class Backward(NamedTuple):
    """One backward pass through one call."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]
    relu: ReluLayer
    output: tf.Tensor  # of the call
    gradient: tf.Tensor  # as it is passed on
    call: list[tf.Tensor]  # the positions of this call that are counted already: a second tape adds only new ones


class Sums(NamedTuple):
    """The tallies of one layer, or of several side by side, added up; vectors over the neurons of them all."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]
    counts: Any  # (3, neurons): active, with gradient, NaN; the last missing where `hunted`
    hunted: list[Forward]  # calls in which a NaN is looked for only if there is one
    activation_sum: Any  # float64, None where it was not asked for
    positions: Any
    samples: Any
    backwards: int
    limit: int  # of the positions

    @classmethod
    def of(
        cls,
        tallies: list[Forward | Backward],
        samples: Any = None,
        *,
        xla: bool | None = None,
        sums: bool = False,
    ) -> "Sums":
        forward = [t for t in tallies if isinstance(t, Forward)]
        keys, neurons, relu, output, *_ = tallies[0]
        axis, size, outputs = relu.axis, sum(neurons), [t.output for t in forward]
        hunted = forward if max(neurons) > NARROW and _may_hunt(xla) else []
        with tf.device(output.device):  # where the user placed the layer
            calls = {id(t.output): [u for u in tallies if u.output is t.output] for t in tallies}
            found = [_counts(call, axis, xla, nan=not hunted) for call in calls.values()]
            return cls(
                keys,
                neurons,
                counts=_sum(found, tf.int64),
                hunted=hunted,
                activation_sum=_sum(
                    [total(tf.cast(a, tf.float64), axis) for a in outputs] or [np.zeros(size)], tf.float64
                )
                if sums
                else None,
                positions=reduce(add, [_positions(a, axis) for a in outputs]) if outputs else 0,
                # A shared layer called twice sees its samples twice, not twice as many (positions do add), and
                # TimeDistributed may fold time into the batch: the samples are the step's, where there is a step.
                samples=samples if forward and samples is not None else _max([rows(a) for a in outputs]),
                backwards=int(len(forward) < len(tallies)),
                limit=min([most(a, axis, xla) for a in outputs], default=0),
            )


def _may_hunt(xla: bool | None) -> bool:
    """Not where a choice would wait for a value, nor on a GPU, where the largest of some values may hide a NaN."""
    return xla is False and not tf.executing_eagerly() and not on_gpu()


def nan_counts(hunted: list[list[Forward]]) -> tf.Tensor:
    """`(neurons,)`, of these calls of each layer, the layers side by side: the neurons are looked at one by one only where
    there is a NaN to be found. (The largest of some values is NaN where one of them is.)"""
    largest = [tf.cast(tf.reduce_max(t.source), tf.float32) for calls in hunted for t in calls]
    found = tf.math.is_nan(tf.reduce_max(tf.stack(largest)))

    def each() -> tf.Tensor:
        return joined([_sum([_nan(t) for t in calls], tf.int64) for calls in hunted])

    size = sum(sum(calls[0].neurons) for calls in hunted)
    return tf.cond(found, lambda: tf.cast(each(), tf.int32), lambda: tf.zeros([size], tf.int32))


def _nan(tally: Forward) -> tf.Tensor:
    return counts([[tf.math.is_nan(tally.source)]], tally.relu.axis, None)[0]


def _counts(call: list[Forward | Backward], axis: int, xla: bool | None, nan: bool) -> tf.Tensor:
    """What one call of a layer adds, `(3, neurons)`: active, with gradient and, where it is asked for, NaN."""
    fires = call[0].output > 0
    forward = [t for t in call if isinstance(t, Forward)]
    flows = [_new(t) for t in call if isinstance(t, Backward)]
    masks: list[Mask] = [
        [fires] if forward else [],
        # dL/dz = dL/da * relu'(z) is zero where the neuron is off, even where dL/da is infinite.
        [reduce(tf.logical_or, flows), fires] if flows else [],
        *([[tf.math.is_nan(t.source) for t in forward]] if nan else []),
    ]
    found = counts([mask for mask in masks if mask], axis, xla)
    if all(masks):
        return found
    each = iter(tf.unstack(found))
    return tf.stack([next(each) if mask else tf.zeros_like(found[0]) for mask in masks])


def wanted(tallies: list[Forward | Backward], graph: Any) -> list[Forward | Backward]:
    """Without the backward passes whose gradient nobody uses.

    A tape walks through frozen layers too, and TensorFlow then prunes what leads nowhere; counting it would keep it
    alive: a whole backward pass through a frozen backbone. Wanted is what reaches a stateful operation (an optimizer).
    """
    if graph is None:
        return tallies
    nowhere: set[int] = set()
    return [t for t in tallies if isinstance(t, Forward) or _leads_somewhere(t.gradient, nowhere)]


def _leads_somewhere(tensor: tf.Tensor, nowhere: set[int]) -> bool:
    seen, todo = set(), [tensor]
    while todo:
        for op in todo.pop().consumers():
            if op.op_def.is_stateful or op.type in _CALLS:
                return True
            if id(op) not in seen and id(op) not in nowhere:
                seen.add(id(op))
                todo += op.outputs
    nowhere |= seen
    return False


def batch_size(data: Any) -> Any:
    """The samples of a batch, an int where its shape is known; None where it does not show."""
    first = next(iter(tf.nest.flatten(data)), None)
    if isinstance(first, tf.RaggedTensor):
        return first.nrows(tf.int64)
    return rows(first) if isinstance(first, tf.Tensor) and first.shape.rank else None


def _positions(output: tf.Tensor, axis: int) -> Any:
    if output.shape.rank == 2:
        return rows(output)
    known = output.shape.num_elements()
    return (tf.size(output, tf.int64) if known is None else known) // output.shape[axis]


def flow(tally: Backward) -> tf.Tensor:
    """dL/dz where the graph shows it, else dL/da: they differ where the neuron is off. (What nobody reads but the ReLU's own
    backward pass, TensorFlow overwrites with its result instead of taking new memory.)"""
    if not tf.executing_eagerly() and tally.relu.ceiling is None:
        for op in tally.gradient.consumers():
            if op.type == "ReluGrad" and op.inputs[0] is tally.gradient and op.inputs[1] is tally.output:
                return op.outputs[0]
    return tally.gradient


def _new(tally: Backward) -> tf.Tensor:
    """Where a gradient arrives, and was not counted yet. At the ceiling of a bounded ReLU relu'(z) is zero, too."""
    flows, ceiling = flow(tally) != 0, tally.relu.ceiling
    if ceiling is not None:
        flows &= tally.output != tf.cast(ceiling, tally.output.dtype)
    before = [mask for mask in tally.call if tf.executing_eagerly() or mask.graph is flows.graph]
    tally.call.append(flows | before[-1] if before else flows)
    return flows & ~before[-1] if before else flows


def _sum(parts: list[Any], dtype: Any) -> Any:
    """Counts in float32 are exact one by one, their sum in int64."""
    return tf.add_n([tf.cast(part, dtype) for part in parts]) if len(parts) > 1 else parts[0]


def _max(parts: list[Any]) -> Any:
    if all(isinstance(part, int) for part in parts):
        return max(parts, default=0)
    return parts[0] if len(parts) == 1 else tf.reduce_max(tf.stack([tf.cast(part, tf.int64) for part in parts]))
