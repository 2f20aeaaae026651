"""Where do the counts live? In non-trainable variables of integers, the layers of one step side by side, added to at once.

Per neuron 32 bytes: positions active, with gradient and NaN, and the step of the last activity; 28 where NaN stand apart.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.hunt import Hunted, found
from relu_probe.kernels import EXACT, joined
from relu_probe.tallies import Sums


class Block:
    """The counts of layers that are added to together.

    Args:
        strategy: of the model; the variables are made in its scope.
        neurons: of each layer.
        step: the number of the training step from 1, or None where neurons are not dated.
        activation_sum: keep the sums of the activations too.
        apart: the NaN are kept apart, and touched only where there are any. A million neurons cost 20 MB more else, at the
            peak; of few neurons it is the number of operations that costs.
    """

    def __init__(
        self, strategy: Any, neurons: list[int], step: tf.Variable | None, *, activation_sum: bool, apart: bool
    ) -> None:
        self.neurons, self.ends = np.array(neurons), np.cumsum(neurons)
        self.replicas = strategy.num_replicas_in_sync
        self.step = step
        total = self.ends[-1]
        replicas = 0 if step is None else self.replicas
        self.counts, self.nan, self.meta, self.last, self.sums = variables(
            strategy,
            np.zeros((2 if apart else 3, total), np.int64),  # active, with gradient, NaN
            np.zeros(total if apart else 0, np.int32),  # 1 where there was a NaN
            np.zeros(4 * len(neurons), np.int64),  # positions, samples, backward passes, steps too large to count
            # The step of the last activity, 0 for never. Variables aggregate by SUM, not by MAX: a row a replica.
            np.zeros((replicas, total), np.int64),
            np.zeros(total if activation_sum else 0, np.float64),
        )

    @property
    def all(self) -> list[Any]:
        return [self.counts, self.nan, self.meta, self.last, self.sums]

    def add(self, layers: list[Sums]) -> None:
        """Few large operations rather than many small ones: on small models it is their number that costs."""
        counts = self._counts(layers)
        self.counts.assign_add(tf.cast(counts, tf.int64))
        # What is constant would not wait for the batch, and count one more after the last: see `Counters.step`.
        with tf.control_dependencies([counts]):
            self.meta.assign_add(_numbers(layers))
        if self.step is not None:
            self._date(counts[0] > 0, self.step)
        if self.sums.shape[0]:
            self.sums.assign_add(joined([layer.activation_sum for layer in layers]))

    def _date(self, fired: tf.Tensor, step: tf.Variable) -> None:
        if self.replicas > 1:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            fired = fired[None] & (tf.range(self.replicas) == replica)[:, None]
        self.last.assign(tf.where(fired, step, self.last))

    def reset(self) -> None:
        for counted in (self.counts, self.nan, self.meta, self.sums):
            _zero(counted)

    def forget(self) -> None:
        """When the neurons were last active, too."""
        _zero(self.last)

    def read(self) -> list["Counted"]:
        """The global counts, layer by layer."""
        # Views, not copies: of a layer as wide as a million neurons these are 32 MB.
        counts, nan, meta, last, sums = (np.asarray(memoryview(tf.convert_to_tensor(v))) for v in self.all)
        starts, meta = self.ends - self.neurons, meta.reshape(4, -1)
        rows = [*counts, nan][:3]
        return [
            Counted._make([*(row[a:b] for row in rows), *meta[:, i], _newest(last[:, a:b]), sums[a:b]])
            for i, (a, b) in enumerate(zip(starts, self.ends))
        ]

    def _counts(self, layers: list[Sums]) -> tf.Tensor:
        """Of all layers side by side, as `self.counts` has them; the hunted ones are the first."""
        parts = [layer.counts for layer in layers if not isinstance(layer.counts, Hunted)]
        if hunted := [layer.counts for layer in layers if isinstance(layer.counts, Hunted)]:
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


def _newest(last: Any) -> Any:
    """Of the rows, and from 0, -1 for never; in place, for a layer may be very wide."""
    newest = last.max(axis=0, initial=0)
    newest -= 1
    return newest


def _zero(counted: tf.Variable) -> None:
    if counted.shape.num_elements():
        counted.assign(tf.zeros(counted.shape, counted.dtype))


def _numbers(layers: list[Sums]) -> tf.Tensor:
    """What a step adds to the positions, samples, backward passes and steps too large to count of all layers."""
    limited = {id(s.positions): s.positions for s in layers if s.limit <= EXACT}
    too_large = {key: positions // (EXACT + 1) for key, positions in limited.items()}
    each = [(s.positions, s.samples, s.backwards, too_large.get(id(s.positions), 0)) for s in layers]
    values = [four[i] for i in range(4) for four, s in zip(each, layers) for _ in s.keys]
    if not any(tf.is_tensor(value) for value in values):
        return tf.constant(values, tf.int64)
    constants = {value: tf.constant(value, tf.int64) for value in values if not tf.is_tensor(value)}
    return tf.stack([tf.cast(value, tf.int64) if tf.is_tensor(value) else constants[value] for value in values])
