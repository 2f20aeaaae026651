"""The targets in the data: how many a ReLU cannot reach, and how large they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.structure.keras_layers import keras_class


class Targets:
    """Collects the targets batch by batch.

    Args:
        model: the model whose labels they are.
    """

    def __init__(self, model: Any) -> None:
        losses = tf.nest.flatten(getattr(model, "loss", None))
        self._squared = bool(losses) and all(_is_squared_error(loss) for loss in losses)
        # Of each array of labels: the number below zero, the number of all, the sum of squares.
        self._totals: Any = np.zeros((0, 3))

    @staticmethod
    def observe(labels: Any) -> Any:
        """`(arrays, 3)` float64, of each array of numbers: how many are below zero, how many there are, the sum of their squares."""
        found = [
            tf.cast(y, tf.float64)
            for y in tf.nest.flatten(labels)
            if isinstance(y, tf.Tensor) and (y.dtype.is_floating or y.dtype.is_integer)
        ]
        rows = [
            [tf.reduce_sum(tf.cast(y < 0, y.dtype)), tf.cast(tf.size(y), y.dtype), tf.reduce_sum(y * y)] for y in found
        ]
        return tf.reshape(tf.cast(rows, tf.float64), (len(rows), 3))

    def collect(self, observed: Any) -> None:
        """Adds what one batch has shown."""
        self._totals = self._totals + observed if len(self._totals) else observed

    def below_zero(self, output: int, outputs: int) -> tuple[int, int] | None:
        """The number of negative targets of an output, and of all its targets; None if the labels have no array for each output."""
        if len(self._totals) != outputs:
            return None
        negative, number, _ = self._totals[output]
        return int(negative), int(number)

    @property
    def size(self) -> float:
        """The root mean square of the targets of a mean squared error, whose gradients grow with them.

        nan for other losses, and where a target is not finite.
        """
        number, squares = self._totals[:, 1].sum(), self._totals[:, 2].sum()
        return float(np.sqrt(squares / number)) if self._squared and number and np.isfinite(squares) else float("nan")


def _is_squared_error(loss: Any) -> bool:
    if isinstance(loss, str):
        return loss.lower() in ("mse", "mean_squared_error", "meansquarederror")
    return "MeanSquaredError" in keras_class(loss) or loss is tf.keras.losses.get("mse")
