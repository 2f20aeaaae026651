"""Counter blocks: the variables that hold the counts of the layers of one step, side by side, so that few operations add to them.

A neuron takes 28 bytes: positions active and with a gradient 8 each, whether a NaN was seen 4, the step of the last activity 8; 36 in
a model of up to 2,048 neurons, and 8 more with `activation_sum`.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.counting.kernels import INDEXED, concat, on_gpu
from relu_probe.counting.layer_counts import LayerIncrements
from relu_probe.counting.step_totals import TotalsLayout, increments


class BlockKey(NamedTuple):
    """What layers must share to be added to one block."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]
    totals: TotalsLayout
    indexed: bool  # the last activity is written by index: half the operations, but nothing for XLA, and slow on a GPU

    @classmethod
    def of(cls, layers: list[LayerIncrements], replicas: int, xla: bool | None) -> "BlockKey":
        """The key of these layers, in their order."""
        keys = tuple(key for layer in layers for key in layer.keys)
        neurons = tuple(n for layer in layers for n in layer.neurons)
        indexed = xla is False and replicas == 1 and sum(neurons) <= INDEXED and not on_gpu()
        return cls(keys, neurons, TotalsLayout.of([layer.totals for layer in layers for _ in layer.keys]), indexed)


class LayerCounts(NamedTuple):
    """What the variables hold of one layer."""

    active: Any  # (neurons,), as the next four
    with_gradient: Any
    nan: Any
    last_active: Any
    activation_sum: Any
    positions: Any
    samples: Any
    backward: Any  # zero if no backward pass reached the layer
    inexact: Any  # zero if all counts are exact

    def plus(self, other: "LayerCounts") -> "LayerCounts":
        """The counts of two blocks."""
        last = np.maximum(self.last_active, other.last_active)
        return LayerCounts._make(a + b for a, b in zip(self, other))._replace(last_active=last)


class CounterBlock:
    """The counters of layers that are added to together.

    Args:
        strategy: of the model; the variables are made in its scope.
        key: of the layers.
        dated: keep the step of the last activity.
        activation_sum: keep the sums of the activations.
    """

    def __init__(self, strategy: Any, key: BlockKey, *, dated: bool, activation_sum: bool) -> None:
        self.key = key
        self._ends = np.cumsum(key.neurons)
        self._replicas = strategy.num_replicas_in_sync
        total = self._ends[-1]
        self.variables = make_variables(
            strategy,
            np.zeros(2 * total, np.int64),  # active, with gradient
            np.zeros(total, np.int32),  # 1 if a NaN was seen
            np.zeros(key.totals.shape, np.int64),
            # The step of the last activity, from 1; 0 for never. Variables aggregate by SUM, not by MAX: a row for each replica. To
            # write the steps of the last gradients as well, which nobody reads, is faster than to slice them off.
            np.zeros(dated * total * (2 if key.indexed else self._replicas), np.int64),
            np.zeros(total if activation_sum else 0, np.float64),
        )
        self._counts, self._nan, self._totals, self._last_active, self._activation_sum = self.variables

    def add(self, layers: list[LayerIncrements], step: Callable[[], Any] | None, batch: list[tf.Tensor]) -> None:
        """Adds what one step counted; few large operations rather than many small ones.

        Args:
            layers: of the block, in its order.
            step: gives the number of the step, from 1; None if activity is not dated.
            batch: what the additions wait for. A constant would not wait for the batch, and be added once more after the last one.
        """
        counts = self._concat_counts(layers)
        added = tf.cast(counts, tf.int64)
        # What waits only for the batch would be handed to other threads, operation by operation.
        with tf.control_dependencies([counts, *batch]):
            self._counts.assign_add(added)
            self._totals.assign_add(increments([layer.totals for layer in layers]))
        if step is not None:
            self._date(counts, step())
        if self._activation_sum.shape[0]:
            self._activation_sum.assign_add(concat([layer.activation_sum for layer in layers]))
        self._mark_nan(layers)

    def _concat_counts(self, layers: list[LayerIncrements]) -> tf.Tensor:
        """Positions active of all layers, then positions with a gradient of all layers."""
        if len(layers) == 1:
            return layers[0].positions.counts
        return tf.reshape(concat([tf.reshape(layer.positions.counts, [2, -1]) for layer in layers], 1), [-1])

    def _mark_nan(self, layers: list[LayerIncrements]) -> None:
        def mark() -> None:
            mask = tf.cast(concat([layer.positions.nan_mask() for layer in layers]), tf.int32)
            self._nan.assign(tf.maximum(self._nan, mask))

        tests = [layer.positions.nan_test for layer in layers]
        if any(test is None for test in tests):
            mark()
        else:
            tf.cond(tests[0] if len(tests) == 1 else tf.reduce_any(tf.stack(tests)), mark, lambda: None)

    def _date(self, counts: tf.Tensor, step: tf.Tensor) -> None:
        if self.key.indexed:
            tf.raw_ops.ResourceScatterUpdate(
                resource=self._last_active.handle, indices=tf.where(counts), updates=tf.cast(step, tf.int64)
            )
            return
        fired = counts[: self._ends[-1]] > 0
        if self._replicas > 1:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            fired = tf.reshape(fired[None] & (tf.range(self._replicas) == replica)[:, None], [-1])
        self._last_active.assign(tf.where(fired, step, self._last_active))

    def reset(self) -> None:
        """Sets all counters to zero but the last activity, which belongs to the whole fit."""
        for variable in (self._counts, self._nan, self._totals, self._activation_sum):
            _set_to_zero(variable)

    def reset_last_active(self) -> None:
        """Forgets when the neurons were last active."""
        _set_to_zero(self._last_active)

    def read(self) -> list[LayerCounts]:
        """The global counts of each layer. Reading is a collective of all workers."""
        # Views of TensorFlow's memory, which `LayerReport` copies; the steps of the last activity are our own, and not copied again.
        counts, nan, totals, last, sums = (np.asarray(memoryview(tf.convert_to_tensor(v))) for v in self.variables)
        active, with_gradient = counts.reshape(2, -1)
        last = self._newest(last)
        totals = self.key.totals.read(totals)
        return [
            LayerCounts(*(each[end - n : end] for each in (active, with_gradient, nan, last, sums)), *totals[:, i])
            for i, (end, n) in enumerate(zip(self._ends, self.key.neurons))
        ]

    def _newest(self, last: Any) -> Any:
        """The last step of each neuron over the replicas, from 0; -1 for never."""
        rows = last.reshape(-1, self._ends[-1])
        newest = rows[: 1 if self.key.indexed else None].max(axis=0, initial=0)
        newest -= 1  # in place: a layer may be very wide
        newest.flags.writeable = False
        return newest


def make_variables(strategy: Any, *values: Any, aggregation: Any = tf.VariableAggregation.SUM) -> list[tf.Variable]:
    """Counters of these initial values. (Keras variables are wrong under a strategy; float32 counters stop at 2**24.)

    They are made in a thread of its own, in which no function is being traced and no replica is at work: a `tf.function` that makes
    a variable in its first trace is traced twice, `tf.init_scope` or not.
    """
    on_read = tf.VariableSynchronization.ON_READ
    device = _device() if strategy.num_replicas_in_sync == 1 else None

    def make() -> list[tf.Variable]:
        with tf.device(device), strategy.scope():
            return [
                # An empty value stays a constant: the chief sends each new variable to the other workers, and TensorFlow 2.21
                # crashes if there is nothing to send.
                tf.Variable(v, trainable=False, synchronization=on_read, aggregation=aggregation)
                if v.size
                else tf.constant(v)
                for v in values
            ]

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


def _device() -> str:
    """The caller's device: functions that XLA compiles take no variable of another one."""
    with tf.init_scope():
        return str(tf.zeros(()).device)


def _set_to_zero(variable: tf.Variable) -> None:
    if variable.shape.num_elements():
        variable.assign(tf.zeros(variable.shape, variable.dtype))
