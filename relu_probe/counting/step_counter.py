"""The number of the training step, from which every neuron's last activity is dated."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.counting.counter_block import make_variables


class StepCounter:
    """Counts the training steps of a fit, in a variable that is made with the first step.

    Args:
        strategy: the distribution strategy, in whose scope the variable is made.
    """

    def __init__(self, strategy: Any) -> None:
        self._strategy, self._variable, self._first = strategy, None, 0
        self._lock = threading.RLock()  # each replica of a MirroredStrategy traces in its own thread

    def count(self, batch: list[tf.Tensor]) -> Callable[[], Any]:
        """Counts a step after its batch was read. Returns a function that reads the number of the step, from 1."""
        variable = self._made()
        with tf.control_dependencies(batch):
            variable.assign_add(1)
        return lambda: tf.convert_to_tensor(variable)

    def current(self) -> Callable[[], Any]:
        """Returns a function that reads the number of the step under way, which is counted at its end, from 1."""
        variable = self._made()
        return lambda: tf.convert_to_tensor(variable) + 1

    def set(self, steps: int) -> None:
        """Sets the number of steps so far."""
        self._first = steps
        if self._variable is not None:
            self._variable.assign(steps)

    @property
    def last(self) -> int | None:
        """The newest step, from 0; None before the first."""
        steps = 0 if self._variable is None else int(tf.convert_to_tensor(self._variable))
        return steps - 1 if steps else None

    def _made(self) -> Any:
        with self._lock:
            if self._variable is None:
                first = tf.VariableAggregation.ONLY_FIRST_REPLICA
                (self._variable,) = make_variables(self._strategy, np.array(self._first, "int64"), aggregation=first)
        return self._variable
