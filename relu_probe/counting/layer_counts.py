"""What do the calls of one step add to the counts? Layer by layer, as tensors."""

from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.counting.deferred_nan import DeferredNanCounts, can_defer_nan, hunted
from relu_probe.counting.kernels import most, total
from relu_probe.counting.passes import BackwardPass, ForwardPass, call_counts
from relu_probe.counting.rows import rows

_CALLS = ("If", "StatelessIf", "While", "StatelessWhile", "PartitionedCall", "Case", "StatelessCase")


class LayerIncrements(NamedTuple):
    """The tallies of one layer, or of several side by side, added up; vectors over the neurons of them all."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]
    counts: tf.Tensor | DeferredNanCounts  # (3, neurons): active, with gradient, NaN
    activation_sum: Any  # float64, None where it was not asked for
    positions: Any
    samples: Any
    backwards: int
    limit: int  # of the positions
    output: Any  # of one call

    @classmethod
    def of(
        cls,
        tallies: list[ForwardPass | BackwardPass],
        samples: Any = None,
        *,
        xla: bool | None = None,
        sums: bool = False,
    ) -> "LayerIncrements":
        forward = [t for t in tallies if isinstance(t, ForwardPass)]
        keys, neurons, relu, output, *_ = tallies[0]
        if not output.dtype.is_floating:
            raise ValueError(f"its output is {output.dtype.name}, expected a floating type")
        axis, size, outputs = relu.axis, sum(neurons), [t.output for t in forward]
        calls = [
            [u for u in tallies if u.output is output] for output in {id(t.output): t.output for t in tallies}.values()
        ]
        with tf.device(output.device):  # where the user placed the layer
            if forward and can_defer_nan(neurons, output.shape.rank, xla):
                counts: Any = hunted(calls, axis)
            else:
                counts = _sum([call_counts(call, axis, xla) for call in calls], tf.int64)
            return cls(
                keys,
                neurons,
                counts=counts,
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
                limit=min([most(a, axis, xla) for a in outputs], default=2**62),
                output=output,
            )


def drop_unused_backward_passes(
    tallies: list[ForwardPass | BackwardPass], graph: Any
) -> list[ForwardPass | BackwardPass]:
    """Without the backward passes whose gradient nobody uses.

    A tape walks through frozen layers too, and TensorFlow then prunes what leads nowhere; counting it would keep it
    alive: a whole backward pass through a frozen backbone. Wanted is what reaches a stateful operation (an optimizer).
    """
    if graph is None:
        return tallies
    nowhere: set[int] = set()
    return [t for t in tallies if isinstance(t, ForwardPass) or _leads_somewhere(t.gradient, nowhere)]


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


def _sum(parts: list[Any], dtype: Any) -> Any:
    """Counts in float32 are exact one by one, their sum in int64."""
    return tf.add_n([tf.cast(part, dtype) for part in parts]) if len(parts) > 1 else parts[0]


def _max(parts: list[Any]) -> Any:
    if all(isinstance(part, int) for part in parts):
        return max(parts, default=0)
    return parts[0] if len(parts) == 1 else tf.reduce_max(tf.stack([tf.cast(part, tf.int64) for part in parts]))
