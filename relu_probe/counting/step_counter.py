"""Which training step is this? A number in a variable that every step adds to anyway: one more would cost a small model 1 %."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class Clock(NamedTuple):
    """Training steps, times a unit, in the last element of a vector."""

    variable: tf.Variable
    unit: int

    def tick(self) -> None:
        """Where the step adds nothing else to the variable."""
        self.variable.assign_add(at(self.unit, self.variable.shape[0]))

    def now(self) -> tf.Tensor:
        return tf.gather(self.variable, self.variable.shape[0] - 1)

    def set(self, steps: int) -> None:
        """Zero goes to the other elements."""
        self.variable.assign(at(steps * self.unit, self.variable.shape[0]))

    def steps(self, stamps: Any) -> Any:
        """The training steps, from 1, at which it was `now()`, or `now() + 1` before the step ticked; 0 for never. In place.

        >>> Clock(tf.zeros(1), 4).steps(np.array([0, 4, 8, 9, 13])).tolist()
        [0, 1, 2, 3, 4]
        """
        np.negative(stamps, out=stamps)
        stamps //= self.unit
        return np.negative(stamps, out=stamps)


def at(value: int, size: int) -> Any:
    """What it holds then."""
    vector = np.zeros(size, np.int64)
    vector[-1] = value
    return vector
