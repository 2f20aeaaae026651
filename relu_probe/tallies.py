"""What does one call of a layer add to the counts? What the calls of one step found, layer by layer, as tensors."""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

_CALLS = ("If", "StatelessIf", "While", "StatelessWhile", "PartitionedCall", "Case", "StatelessCase")


class Forward(NamedTuple):
    """What one call counted, `(neurons,)` each; size and samples are ints where the shape is known."""

    key: str
    active: tf.Tensor
    nan: tf.Tensor  # floats, NaN where one was seen
    size: Any  # positions * neurons
    samples: Any
    activation_sum: tf.Tensor | None


class Backward(NamedTuple):
    """What one backward pass through one call found: `passes`, the positions with a gradient, not yet counted."""

    key: str
    passes: tf.Tensor
    gradient: tf.Tensor  # as it is passed on
    call: list[tf.Tensor]  # the positions of this call that are counted already: a second tape adds only new ones
    count: Callable[[tf.Tensor], tf.Tensor]  # positions -> (neurons,)


class Sums(NamedTuple):
    """The tallies of one layer, added up."""

    active: Any
    with_gradient: Any
    nan: Any
    activation_sum: Any
    size: Any
    samples: Any
    backwards: int
    neurons: int

    @classmethod
    def of(cls, tallies: list[Forward | Backward], samples: Any = None) -> "Sums":
        forward = [t for t in tallies if isinstance(t, Forward)]
        with_gradient = [_count_new(t) for t in tallies if isinstance(t, Backward)]
        neurons = int((forward[0].active if forward else with_gradient[0]).shape[0])
        sums = [t.activation_sum for t in forward if t.activation_sum is not None]
        return cls(
            active=_sum([t.active for t in forward], neurons, np.int32),
            with_gradient=_sum(with_gradient, neurons, np.int32),
            nan=_sum([tf.cast(t.nan, tf.float32) for t in forward], neurons, np.float32),
            activation_sum=_sum(sums, neurons, np.float64),
            size=reduce(operator.add, [t.size for t in forward]) if forward else 0,
            # A shared layer called twice sees its samples twice, not twice as many (positions do add), and
            # TimeDistributed may fold time into the batch: the samples are the step's, where there is a step.
            samples=samples if forward and samples is not None else _max([t.samples for t in forward]),
            backwards=int(bool(with_gradient)),
            neurons=neurons,
        )


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
    if not isinstance(first, tf.Tensor) or not first.shape.rank:
        return None
    return tf.shape(first, tf.int64)[0] if first.shape[0] is None else int(first.shape[0])


def _count_new(tally: Backward) -> tf.Tensor:
    before = [mask for mask in tally.call if tf.executing_eagerly() or mask.graph is tally.passes.graph]
    tally.call.append(tally.passes | before[-1] if before else tally.passes)
    return tally.count(tally.passes & ~before[-1] if before else tally.passes)


def _sum(parts: list[Any], neurons: int, dtype: Any) -> Any:
    return np.zeros(neurons, dtype) if not parts else parts[0] if len(parts) == 1 else tf.add_n(parts)


def _max(parts: list[Any]) -> Any:
    if all(isinstance(part, int) for part in parts):
        return max(parts, default=0)
    return parts[0] if len(parts) == 1 else tf.reduce_max(tf.stack([tf.cast(part, tf.int64) for part in parts]))
