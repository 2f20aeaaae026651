"""What does a step add beside the counts? Positions, samples, backward passes, steps too large to count; and to the clock."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.counting.kernels import EXACT
from relu_probe.counting.layer_counts import LayerIncrements


class TotalsLayout(NamedTuple):
    """How they stand in a vector of int64 whose last element is the clock's.

    Of layers side by side it is the shape of their output, `(rows, width)`: of a small model's step all else costs 1 % more.
    """

    layers: int
    width: int = 0  # 0 where no shape tells all
    backwards: int = 0  # of each step, where one does

    @classmethod
    def of(cls, layers: list[LayerIncrements]) -> "TotalsLayout":
        (first, *others), keys = layers, sum(len(s.keys) for s in layers)
        if others or not tf.is_tensor(first.positions) or first.samples is not first.positions or first.limit <= EXACT:
            return cls(keys)
        return cls(keys, sum(first.neurons), first.backwards)

    @property
    def size(self) -> int:
        return 2 if self.width else 4 * self.layers + 1

    @property
    def unit(self) -> int:
        """Of the clock."""
        return self.width or 1

    def added(self, layers: list[LayerIncrements]) -> tf.Tensor:
        """`(size,)`."""
        return tf.shape(layers[0].output, tf.int64) if self.width else _each(layers)

    def read(self, added: Any) -> Any:
        """`(4, layers)`."""
        if not self.width:
            return added[:-1].reshape(4, -1)
        rows = added[0]
        return np.repeat([[rows], [rows], [self.backwards * (rows > 0)], [0]], self.layers, 1)


def _each(layers: list[LayerIncrements]) -> tf.Tensor:
    limited = {id(s.positions): s.positions for s in layers if s.limit <= EXACT}
    too_large = {key: positions // (EXACT + 1) for key, positions in limited.items()}
    each = [(s.positions, s.samples, s.backwards, too_large.get(id(s.positions), 0)) for s in layers]
    values = [*(four[i] for i in range(4) for four, s in zip(each, layers) for _ in s.keys), 1]
    if not any(tf.is_tensor(value) for value in values):
        return tf.constant(values, tf.int64)
    constants = {value: tf.constant(value, tf.int64) for value in values if not tf.is_tensor(value)}
    return tf.stack([tf.cast(value, tf.int64) if tf.is_tensor(value) else constants[value] for value in values])
