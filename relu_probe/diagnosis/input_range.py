"""The range of a model's inputs in the data, compared with the bounds that `diagnose` was given. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np

from relu_probe.diagnosis.interval_arithmetic import Box, as_evaluated, read_box


class InputRange:
    """Collects the smallest and the largest inputs, batch by batch.

    Args:
        bounds: `(low, high)`, scalars or arrays of the input's shape.
    """

    def __init__(self, bounds: Any) -> None:
        self._bounds = bounds
        self.boxes: list[Box | None] = []  # of each input; None for an input of integers
        self.low, self.high = np.inf, -np.inf  # of all inputs
        self.outside = False  # some input was outside of the bounds

    def collect(self, inputs: list[tuple[Any, Any, Any]]) -> None:
        """Takes in the dtype of each input, and its smallest and its largest values in a batch, of one sample's shape.

        Raises:
            ValueError: the bounds are not finite, have low > high, or a shape other than that of the model's input.
        """
        self.boxes = [_box(self._bounds, dtype, low.shape) for dtype, low, _ in inputs]
        for box, (_, low, high) in zip(self.boxes, inputs):
            if box is not None:
                self.low, self.high = min(self.low, float(np.min(low))), max(self.high, float(np.max(high)))
                self.outside = self.outside or bool(np.any(low < box.low) or np.any(high > box.high))

    def sentence(self) -> str:
        """That the data leaves the bounds, so that what is certified does not hold for all of it; "" if it does not."""
        if not self.outside:
            return ""
        return (
            f"The data reaches from {self.low:.6g} to {self.high:.6g}, outside of the bounds: what is certified holds inside of "
            "them only."
        )


def _box(bounds: Any, dtype: Any, shape: tuple[int, ...]) -> Box | None:
    box = read_box(bounds, shape)
    return as_evaluated(box, dtype.as_numpy_dtype) if dtype.name in ("float32", "float64") else None
