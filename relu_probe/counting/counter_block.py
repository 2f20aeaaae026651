"""Counter blocks: variables that hold the counts of several layers concatenated, so that few operations update them.

A neuron takes 28 bytes: 8 for positions active, 8 for positions with a gradient, 4 for whether a NaN was seen, and 8 for the step
of the last activity. It takes 36 bytes in a model of up to 2,048 neurons, and 8 more with `activation_sum`.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.counting.deferred_nan import joint_nan_mask
from relu_probe.counting.kernels import INDEXED, concat, on_gpu
from relu_probe.counting.layer_counts import LayerIncrements
from relu_probe.counting.step_totals import TotalsLayout, increments


class BlockKey(NamedTuple):
    """The layers and the layout of a block: increments with an equal key are added to the same block."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]
    totals: TotalsLayout
    indexed: bool  # write the last activity by index: half the operations, but impossible under XLA and slow on a GPU

    @classmethod
    def of(cls, layers: list[LayerIncrements], replicas: int, xla: bool | None) -> "BlockKey":
        """Returns the key of these layers, in their order."""
        keys = tuple(key for layer in layers for key in layer.keys)
        neurons = tuple(n for layer in layers for n in layer.neurons)
        indexed = xla is False and replicas == 1 and sum(neurons) <= INDEXED and not on_gpu()
        return cls(keys, neurons, TotalsLayout.of([layer.totals for layer in layers for _ in layer.keys]), indexed)


class LayerCounts(NamedTuple):
    """The counts of one layer, as read from the variables."""

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
        """Returns the sum of both counts, with the later of the last activities."""
        last = np.maximum(self.last_active, other.last_active)
        return LayerCounts._make(a + b for a, b in zip(self, other))._replace(last_active=last)


class CounterBlock:
    """The counters of layers that are updated together.

    Args:
        strategy: the distribution strategy, in whose scope the variables are made.
        key: the layers and the layout of the block.
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
            np.zeros(total, np.int32),  # steps with a NaN
            np.zeros(key.totals.shape, np.int64),
            # The step of the last activity, from 1; 0 for never. Variables aggregate by SUM, not by MAX, so each replica has a row.
            # If written by index, the steps of the last gradients are written, too: nobody reads them, but slicing costs more.
            np.zeros(dated * total * (2 if key.indexed else self._replicas), np.int64),
            np.zeros(total if activation_sum else 0, np.float64),
        )
        self._counts, self._nan, self._totals, self._last_active, self._activation_sum = self.variables

    def add(self, layers: list[LayerIncrements], step: Callable[[], Any] | None, batch: list[tf.Tensor]) -> None:
        """Adds the counts of one step, in few large operations rather than many small ones.

        Args:
            layers: the increments of the block's layers, in the order of its key.
            step: returns the number of the step, from 1; None if activity is not dated.
            batch: tensors that the additions wait for. A constant would otherwise be added once more after the last batch.
        """
        counts = self._concat_counts(layers)
        added = tf.cast(counts, tf.int64)
        # Wait for the counts, too: TensorFlow runs operations that wait only for the batch on other threads, one by one.
        with tf.control_dependencies([counts, *batch]):
            self._counts.assign_add(added)
            self._totals.assign_add(increments([layer.totals for layer in layers]))
        if step is not None:
            self._date(counts, step())
        if self._activation_sum.shape[0]:
            self._activation_sum.assign_add(concat([layer.activation_sum for layer in layers]))
        self._mark_nan(layers)

    def _concat_counts(self, layers: list[LayerIncrements]) -> tf.Tensor:
        """Returns the positions active of all layers, then the positions with a gradient of all layers."""
        if len(layers) == 1:
            return concat(layers[0].positions.counts)
        counts = [layer.positions.counts for layer in layers]
        active, with_gradient = zip(*(each if len(each) == 2 else tf.split(each[0], 2) for each in counts))
        return concat([*active, *with_gradient])

    def _mark_nan(self, layers: list[LayerIncrements]) -> None:
        def mark() -> None:
            self._nan.assign_add(tf.cast(joint_nan_mask([layer.positions.nan_mask() for layer in layers]), tf.int32))

        tests = [layer.positions.nan_test for layer in layers]
        if all(test is None for test in tests):
            mark()
        else:
            found = [
                tf.reduce_any(joint_nan_mask([layer.positions.nan_mask()])) if test is None else test
                for layer, test in zip(layers, tests)
            ]
            tf.cond(found[0] if len(found) == 1 else tf.reduce_any(tf.stack(found)), mark, lambda: None)

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
        # In place: `assign` would give the variable the memory of the new value, and that may split memory that a large tensor of the
        # model needs in the next step: 80 MB more for a million neurons, as for variables that are made from NumPy's memory.
        self._last_active.assign_add(tf.where(fired, step - self._last_active, 0))

    def reset(self) -> None:
        """Sets all counters to zero, except for the last activity, which belongs to the whole fit."""
        for variable in (self._counts, self._nan, self._totals, self._activation_sum):
            _set_to_zero(variable)

    def reset_last_active(self) -> None:
        """Forgets when the neurons were last active."""
        _set_to_zero(self._last_active)

    def read(self) -> list[LayerCounts]:
        """Returns the global counts of each layer. A collective operation: every worker has to call it."""
        # These arrays are views of TensorFlow's memory, and `LayerReport` copies them. It does not copy the last activity again:
        # `_newest` returns a new read-only array.
        counts, nan, totals, last, sums = (np.asarray(memoryview(tf.convert_to_tensor(v))) for v in self.variables)
        active, with_gradient = counts.reshape(2, -1)
        last = self._newest(last)
        totals = self.key.totals.read(totals)
        return [
            LayerCounts(*(each[end - n : end] for each in (active, with_gradient, nan, last, sums)), *totals[:, i])
            for i, (end, n) in enumerate(zip(self._ends, self.key.neurons))
        ]

    def _newest(self, last: Any) -> Any:
        """Returns the last active step of each neuron over all replicas, from 0; -1 for never."""
        rows = last.reshape(-1, self._ends[-1])
        newest = rows[: 1 if self.key.indexed else None].max(axis=0, initial=0)
        newest -= 1  # in place, because a layer may be very wide
        newest.flags.writeable = False
        return newest


def make_variables(strategy: Any, *values: Any, aggregation: Any = tf.VariableAggregation.SUM) -> list[tf.Variable]:
    """Returns counters with these initial values, each of which holds a single number, repeated.

    They are no Keras variables, which count wrongly under a strategy, and no floats: a float32 counter stops at 2**24. They are
    made in a separate thread, in which no function is traced and no replica runs: a `tf.function` that makes a variable in its
    first trace is traced twice, even with `tf.init_scope`.
    """
    on_read = tf.VariableSynchronization.ON_READ
    device = _device() if strategy.num_replicas_in_sync == 1 else None

    def make() -> list[tf.Variable]:
        with tf.device(device), strategy.scope():
            return [
                # An empty value stays a constant: the chief sends each new variable to the other workers, and TensorFlow 2.21
                # crashes if there is nothing to send. A variable made from NumPy's memory would move to TensorFlow's in the first step.
                tf.Variable(
                    tf.fill(v.shape, v.flat[0]), trainable=False, synchronization=on_read, aggregation=aggregation
                )
                if v.size
                else tf.constant(v)
                for v in values
            ]

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


def _device() -> str:
    """Returns the caller's device: a function that XLA compiles cannot use variables of another device."""
    with tf.init_scope():
        return str(tf.zeros(()).device)


def _set_to_zero(variable: tf.Variable) -> None:
    """Assigns zeros twice: `assign` gives a variable the memory of the new value, and the second time that is where it was before.

    Elsewhere it may split memory that a large tensor of the model had: 60 MB more for a million neurons with `activation_sum`.
    """
    if variable.shape.num_elements():
        for _ in range(2):
            variable.assign(tf.zeros(variable.shape, variable.dtype))
