"""Where do the counts live? In non-trainable variables of integers, the layers of one step side by side, added to at once.

Per neuron 32 bytes: positions active, with gradient and NaN, and the step of the last activity; 28 where NaN stand apart; 48
in a model of up to 2,048 neurons.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.counting.deferred_nan import DeferredNanCounts, found
from relu_probe.counting.kernels import joined, on_gpu
from relu_probe.counting.layer_counts import LayerIncrements
from relu_probe.counting.step_counter import Clock, at
from relu_probe.counting.step_totals import TotalsLayout

_INDEXED = 2048  # neurons up to which what is active is dated by its index


class BlockKey(NamedTuple):
    """What layers must share that are added to one block."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]
    numbers: TotalsLayout
    # NaN are kept apart, and touched only where there are any. A million neurons cost 20 MB more else, at the peak; of few
    # neurons it is the number of operations that costs.
    apart: bool
    # Half the operations, but nothing for XLA, and dear on a GPU.
    indexed: bool

    @classmethod
    def of(cls, layers: list[LayerIncrements], replicas: int, xla: bool | None) -> "BlockKey":
        keys, neurons = (tuple(sum((getattr(s, name) for s in layers), ())) for name in ("keys", "neurons"))
        apart = all(isinstance(s.counts, DeferredNanCounts) for s in layers)
        indexed = xla is False and replicas == 1 and not apart and sum(neurons) <= _INDEXED and not on_gpu()
        return cls(keys, neurons, TotalsLayout.of(layers), apart, indexed)


class Block:
    """The counts of layers that are added to together.

    Args:
        strategy: of the model; the variables are made in its scope.
        kind: of the layers.
        dated: keep the step of the last activity.
        steps: taken before, for its clock.
        activation_sum: keep the sums of the activations too.
    """

    def __init__(self, strategy: Any, kind: BlockKey, *, dated: bool, steps: int, activation_sum: bool) -> None:
        self.kind, self.ends = kind, np.cumsum(kind.neurons)
        self.replicas = strategy.num_replicas_in_sync
        total = self.ends[-1]
        self.counts, self.nan, self.meta, self.last, self.sums = variables(
            strategy,
            np.zeros((2 if kind.apart else 3) * total, np.int64),  # active, with gradient, NaN
            np.zeros(total if kind.apart else 0, np.int32),  # 1 where there was a NaN
            at(steps * kind.numbers.unit if self.replicas == 1 else 0, kind.numbers.size),
            # Of the last activity, 0 for never: see `Clock`. Variables aggregate by SUM, not by MAX: a row a replica. To date
            # gradients and NaN, too, which nobody reads, is faster than to slice them off.
            np.zeros(dated * total * (3 if kind.indexed else self.replicas), np.int64),
            np.zeros(total if activation_sum else 0, np.float64),
        )

    @property
    def all(self) -> list[Any]:
        return [self.counts, self.nan, self.meta, self.last, self.sums]

    def add(self, layers: list[LayerIncrements], clock: Clock | None, batch: list[tf.Tensor] | None) -> None:
        """Few large operations rather than many small ones: on small models it is their number that costs.

        Args:
            clock: of the training steps, None where neurons are not dated.
            batch: of the step whose end this is, when the clock ticks; None before.
        """
        counts, numbers = self._counts(layers), self.kind.numbers.added(layers)
        flat = tf.reshape(counts, [-1])
        added = tf.cast(flat, tf.int64)
        # What is constant would not wait for the batch, and count one more after the last. What waits for nothing else than
        # the batch is handed to threads by TensorFlow, one by one, which takes a small model longer than to do it.
        with tf.control_dependencies([flat, *(batch or [])]):
            self.counts.assign_add(added)
            self.meta.assign_add(numbers)
            if clock is not None and batch is not None and clock.variable is not self.meta:
                clock.tick()
        if clock is not None:
            stamp = clock.now() if batch is not None else clock.now() + 1
            self._date(flat if self.kind.indexed else counts[0], stamp)
        if self.sums.shape[0]:
            self.sums.assign_add(joined([layer.activation_sum for layer in layers]))

    def _date(self, active: tf.Tensor, stamp: tf.Tensor) -> None:
        if self.kind.indexed:
            tf.raw_ops.ResourceScatterUpdate(resource=self.last.handle, indices=tf.where(active), updates=stamp)
            return
        fired = active > 0
        if self.replicas > 1:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            fired = tf.reshape(fired[None] & (tf.range(self.replicas) == replica)[:, None], [-1])
        self.last.assign(tf.where(fired, stamp, self.last))

    def reset(self) -> None:
        """All but the clock, which may be this block's."""
        for counted in (self.counts, self.nan, self.sums):
            _zero(counted)
        if self.replicas == 1:
            Clock(self.meta, 1).set(int(self.meta[-1]))
        else:
            _zero(self.meta)

    def forget(self) -> None:
        """When the neurons were last active, too."""
        _zero(self.last)

    def read(self, clock: Clock | None) -> list["Counted"]:
        """The global counts, layer by layer."""
        # Views, not copies: of a layer as wide as a million neurons these are 32 MB.
        counts, nan, meta, last, sums = (np.asarray(memoryview(tf.convert_to_tensor(v))) for v in self.all)
        ends, starts = self.ends, self.ends - self.kind.neurons
        rows, meta = [*counts.reshape(-1, ends[-1]), nan][:3], self.kind.numbers.read(meta)
        if clock is not None:
            last = _newest(last.reshape(-1, ends[-1])[: 1 if self.kind.indexed else None], clock)
        return [
            Counted._make([*(row[a:b] for row in rows), *meta[:, i], last[a:b], sums[a:b]])
            for i, (a, b) in enumerate(zip(starts, ends))
        ]

    def _counts(self, layers: list[LayerIncrements]) -> tf.Tensor:
        """Of all layers side by side, as `self.counts` has them; the hunted ones are the first."""
        parts = [layer.counts for layer in layers if not isinstance(layer.counts, DeferredNanCounts)]
        if hunted := [layer.counts for layer in layers if isinstance(layer.counts, DeferredNanCounts)]:
            parts.insert(0, found(hunted, self.nan if self.nan.shape[0] else None))
        return joined(parts, 1)


class Counted(NamedTuple):
    """What the variables hold of one layer."""

    active: Any
    with_gradient: Any
    nan: Any
    positions: Any
    samples: Any
    backwards: Any
    too_large: Any
    last: Any
    sums: Any

    def __add__(self, other: "Counted") -> "Counted":  # type: ignore[override]  # no tuple is wanted
        return Counted._make(a + b for a, b in zip(self, other))._replace(last=np.maximum(self.last, other.last))


def variables(strategy: Any, *values: Any, aggregation: Any = tf.VariableAggregation.SUM) -> list[tf.Variable]:
    """Counters of these values. (Keras variables are wrong under a strategy, and float32 counters stop at 2**24.)

    They are made in a thread of their own, where no function is being traced and no replica is at work: a
    `tf.function` in whose first trace a variable is made is traced twice, `tf.init_scope` or not.
    """
    on_read = tf.VariableSynchronization.ON_READ
    device = _device() if strategy.num_replicas_in_sync == 1 else None

    def make() -> list[tf.Variable]:
        with tf.device(device), strategy.scope():
            return [
                # What is empty stays a constant: a variable is sent from the chief to the other workers when it is made,
                # and TensorFlow 2.21 crashes the chief where there is nothing to send.
                tf.Variable(v, trainable=False, synchronization=on_read, aggregation=aggregation)
                if v.size
                else tf.constant(v)
                for v in values
            ]

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


def _device() -> str:
    """Where the caller's `tf.device` puts things: XLA's functions take no variable of another device."""
    with tf.init_scope():
        return str(tf.zeros(()).device)


def _newest(last: Any, clock: Clock) -> Any:
    """Of the rows, and from 0, -1 for never; in place, for a layer may be very wide."""
    newest = clock.steps(last.max(axis=0, initial=0))
    newest -= 1
    return newest


def _zero(counted: tf.Variable) -> None:
    if counted.shape.num_elements():
        counted.assign(tf.zeros(counted.shape, counted.dtype))
