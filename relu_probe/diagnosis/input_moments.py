"""Mean and deviation of what a layer receives: how far its inputs are from being centred."""

from __future__ import annotations

import numpy as np

from relu_probe.diagnosis.observation import CallObservation
from relu_probe.diagnosis.pre_activation import PreActivation
from relu_probe.report.layer_report import Floats, Mask


class InputMoments:
    """Mean and deviation of each input channel of a layer, over all samples and places.

    Args:
        count: the number of inputs of a channel.
        total, squares: `(channels,)`, the sums of the inputs and of their squares.
        used: `(channels,)` bool, some weight of the channel is not zero.
    """

    def __init__(self, count: int, total: Floats, squares: Floats, used: Mask) -> None:
        self.count, self.total, self.squares, self.used = count, total, squares, used

    @classmethod
    def of(cls, z: PreActivation, seen: CallObservation) -> InputMoments:
        """The moments of the inputs of one call."""
        return cls(int(seen.input_count), seen.input_sum, seen.input_square_sum, z.used_channels(len(seen.input_sum)))

    def plus(self, other: InputMoments | None) -> InputMoments:
        """The moments of both."""
        if other is None or len(other.total) != len(self.total):
            return self
        return InputMoments(self.count + other.count, self.total + other.total, self.squares + other.squares, self.used)

    @property
    def finite(self) -> bool:
        """Whether no NaN and no infinity is among the inputs."""
        return bool(np.isfinite(self.total).all())

    @property
    def size(self) -> float:
        """The root mean square of the inputs, of all channels that are used; nan if none is, or if one of them is not finite."""
        squares, number = self.squares[self.used].sum(), self.count * np.count_nonzero(self.used)
        return float(np.sqrt(squares / number)) if number and np.isfinite(squares) else float("nan")

    @property
    def offset(self) -> float:
        """The norm of the inputs' mean over the norm of their deviation: 0 if centred; nan if all are zero or one is not finite."""
        with np.errstate(all="ignore"):
            mean = self.total / max(self.count, 1)
            variance = np.maximum(self.squares / max(self.count, 1) - mean**2, 0)
            # What is left of a constant by rounding is no deviation.
            variance[variance < 1e-12 * mean**2] = 0
            return float(np.linalg.norm(mean[self.used]) / np.sqrt(variance[self.used].sum()))
