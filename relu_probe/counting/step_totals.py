"""Totals of a step: positions and samples of each layer, as multiples of a few numbers of rows.

The layers of a model see the same batch, so all their totals are multiples of its size. A step therefore adds one number for each
distinct number of rows, in most models a single one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.counting.batch_rows import Rows, rows_of
from relu_probe.counting.batch_samples import Batch, largest, samples_of
from relu_probe.counting.kernels import EXACT, exact_up_to
from relu_probe.counting.passes import LayerCall

Multiples = list[tuple[Rows, int]]  # (rows, factor) pairs; their value is the sum of rows * factor


class LayerTotals(NamedTuple):
    """The amounts that a step adds to the totals of one layer."""

    positions: Multiples
    samples: Multiples
    backward: Multiples  # zero only if the step had no backward pass
    inexact: Multiples  # zero only if all counts are exact

    @classmethod
    def of(cls, calls: list[LayerCall], axis: int, batch: Batch | None, xla: bool | None) -> "LayerTotals":
        """Returns the totals of the calls of a layer.

        Args:
            calls: the calls of the layer.
            axis: the axis of the neurons.
            batch: the batch of the step; None outside of its graph, where each row counts as a sample.
            xla: whether XLA compiles the step.
        """
        outputs = [call.output for call in calls if call.source is not None]
        positions = [_positions(output, axis) for output in outputs]
        limited = [rows_of(a) for a in outputs if exact_up_to(a, axis, xla) <= EXACT]
        # A shared layer that is called twice sees the same samples twice: they are counted once.
        samples = [(largest(_samples(outputs, positions, batch)), 1)] if outputs else []
        return cls(
            _as_tensors(positions),
            _as_tensors(samples),
            (_as_tensors(positions) or [(1, 1)]) if any(call.gradients for call in calls) else [],
            [(rows // (EXACT + 1), 1) for rows in limited],
        )

    def with_samples(self, change: Callable[[Rows], Rows]) -> "LayerTotals":
        """Returns the totals with another number of samples: a function of theirs."""
        return self._replace(samples=_as_tensors([(change(rows), 1) for rows, _ in self.samples]))


class TotalsLayout(NamedTuple):
    """The factors that turn the summed `increments` into totals: `(4, layers, sums)`, as nested tuples."""

    factors: tuple[tuple[tuple[int, ...], ...], ...]

    @classmethod
    def of(cls, layers: list[LayerTotals]) -> "TotalsLayout":
        """Returns the layout of these layers, in their order."""
        index = {key: i for i, key in enumerate(_sources(layers))}
        factors = np.zeros((4, len(layers), len(index)), np.int64)
        for j, layer in enumerate(layers):
            for i, multiples in enumerate(layer):
                for rows, factor in multiples:
                    factors[i, j, index[_key(rows)]] += factor * (1 if tf.is_tensor(rows) else rows)
        return cls(tuple(tuple(map(tuple, kind)) for kind in factors.tolist()))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the sums; a single sum is a scalar, which saves an operation."""
        size = len(self.factors[0][0])
        return () if size == 1 else (size,)

    def read(self, sums: Any) -> Any:
        """Returns the totals `(4, layers)` int64: positions, samples, backward, inexact."""
        return np.array(self.factors, np.int64) @ np.atleast_1d(sums)


def increments(layers: list[LayerTotals]) -> tf.Tensor:
    """Returns the amounts that a step adds to the sums: `(sums,)` int64, a scalar if there is only one."""
    found = [tf.cast(rows, tf.int64) for rows in _sources(layers).values()]
    return found[0] if len(found) == 1 else tf.stack(found)


def _sources(layers: list[LayerTotals]) -> dict[int, Any]:
    """Returns each distinct tensor of rows, and the number 1 for all numbers of rows that are known statically."""
    all_rows = [rows for layer in layers for multiples in layer for rows, _ in multiples]
    return {_key(rows): rows if tf.is_tensor(rows) else 1 for rows in all_rows} or {0: 1}


def _key(rows: Rows) -> int:
    return id(rows) if tf.is_tensor(rows) else 0


def _positions(output: tf.Tensor, axis: int) -> tuple[Rows, int]:
    """Returns the positions as `(rows, places)`; as `(positions, 1)` if the number of places is not known."""
    others = [size for i, size in enumerate(output.shape) if i not in (0, axis % output.shape.rank)]
    if None in others:
        return tf.size(output, tf.int64) // output.shape[axis], 1
    return rows_of(output), int(np.prod(others, dtype=np.int64))


def _as_tensors(multiples: Multiples) -> Multiples:
    """Returns the same amount as one tensor in eager mode.

    There every number of rows is known, and differs from step to step: as part of a layout it would make a block for each step.
    """
    if not tf.executing_eagerly() or not multiples:
        return multiples
    return [(tf.constant(int(sum(int(rows) * factor for rows, factor in multiples)), tf.int64), 1)]


def _samples(outputs: list[tf.Tensor], positions: Multiples, batch: Batch | None) -> list[Rows]:
    """Returns the number of samples of each call."""
    if batch is None:
        return [rows_of(a) for a in outputs]
    return [samples_of(output, *each, batch) for output, each in zip(outputs, positions)]
