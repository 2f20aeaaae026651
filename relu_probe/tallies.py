"""What does one call of a layer add to the counts? What the calls of one step found, layer by layer, as tensors."""

from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.kernels import count, most, total
from relu_probe.relus import ReluLayer

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
    active: Any
    with_gradient: Any
    total: Any  # of the outputs, float32: NaN where one was seen
    activation_sum: Any  # float64, None where it was not asked for
    positions: Any
    samples: Any
    backwards: int
    limit: int  # of the positions

    @classmethod
    def of(
        cls, tallies: list[Forward | Backward], samples: Any = None, *, jit: bool = False, sums: bool = False
    ) -> "Sums":
        forward = [t for t in tallies if isinstance(t, Forward)]
        keys, neurons, relu, output, *_ = tallies[0]
        axis, size, outputs = relu.axis, sum(neurons), [t.output for t in forward]
        with tf.device(output.device):  # where the user placed the layer
            fires = {key: a > 0 for key, a in {id(t.output): t.output for t in tallies}.items()}
            with_gradient = [
                count(_new(t, fires[id(t.output)]), axis, jit=jit) for t in tallies if isinstance(t, Backward)
            ]
            return cls(
                keys,
                neurons,
                active=_sum([count(fires[id(a)], axis, jit=jit) for a in outputs], size, tf.int64),
                with_gradient=_sum(with_gradient, size, tf.int64),
                total=_sum([_nan(t, axis) for t in forward], size, tf.float32),
                activation_sum=_sum([total(tf.cast(a, tf.float64), axis) for a in outputs], size, tf.float64)
                if sums
                else None,
                positions=reduce(add, [_positions(a, axis) for a in outputs]) if outputs else 0,
                # A shared layer called twice sees its samples twice, not twice as many (positions do add), and
                # TimeDistributed may fold time into the batch: the samples are the step's, where there is a step.
                samples=samples if forward and samples is not None else _max([_rows(a) for a in outputs]),
                backwards=int(bool(with_gradient)),
                limit=min([most(a, axis) for a in outputs], default=0),
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
    return _rows(first) if isinstance(first, tf.Tensor) and first.shape.rank else None


def _rows(tensor: tf.Tensor) -> Any:
    return tf.shape(tensor, tf.int64)[0] if tensor.shape[0] is None else int(tensor.shape[0])


def _positions(output: tf.Tensor, axis: int) -> Any:
    if output.shape.rank == 2:
        return _rows(output)
    known = output.shape.num_elements()
    return (tf.size(output, tf.int64) if known is None else known) // output.shape[axis]


def _new(tally: Backward, fires: tf.Tensor) -> tf.Tensor:
    """Where dL/dz != 0, and was not counted yet; dL/dz = dL/da * relu'(z), which is zero where the neuron is off, or at
    the ceiling of a bounded ReLU."""
    passes, ceiling = (tally.gradient != 0) & fires, tally.relu.ceiling
    if ceiling is not None:
        passes &= tally.output != tf.cast(ceiling, tally.output.dtype)
    before = [mask for mask in tally.call if tf.executing_eagerly() or mask.graph is passes.graph]
    tally.call.append(passes | before[-1] if before else passes)
    return passes & ~before[-1] if before else passes


def _nan(tally: Forward, axis: int) -> tf.Tensor:
    """Outputs are >= 0: their sum is NaN only where one of them is, for one pass less. (Finite values must not overflow,
    nor NaN stand in the graph: the user may be looking for them, with `enable_check_numerics`.)"""
    values = tally.source
    if values is not tally.output:
        values = tf.where(tf.math.is_nan(values), values, tf.zeros_like(values))
    return tf.cast(total(tf.cast(values, tf.float32) if values.dtype == tf.float16 else values, axis), tf.float32)


def _sum(parts: list[Any], size: int, dtype: Any) -> Any:
    """Counts in float32 are exact one by one, their sum in int64."""
    if len(parts) > 1:
        return tf.add_n([tf.cast(part, dtype) for part in parts])
    return parts[0] if parts else np.zeros(size, np.float32)


def _max(parts: list[Any]) -> Any:
    if all(isinstance(part, int) for part in parts):
        return max(parts, default=0)
    return parts[0] if len(parts) == 1 else tf.reduce_max(tf.stack([tf.cast(part, tf.int64) for part in parts]))
