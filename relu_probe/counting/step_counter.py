"""The number of the step, from which every neuron's last activity is dated."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.counting.counter_block import make_variables


class StepCounter:
    """Counts the training steps of a fit, or the calls of a watched model, in a variable that is made with the first one.

    Args:
        strategy: the distribution strategy, in whose scope the variable is made.
        calls: count calls, each at its beginning with `begin`, instead of steps, each at its end with `count`.
    """

    def __init__(self, strategy: Any, *, calls: bool = False) -> None:
        self._strategy, self._variable, self._first, self._calls = strategy, None, 0, calls
        self._lock = threading.RLock()  # each replica of a MirroredStrategy traces in its own thread

    def count(self, batch: list[tf.Tensor]) -> Callable[[], Any]:
        """Counts a step after its batch was read. Returns a function that reads the number of the step, from 1."""
        variable = self._made()
        with tf.control_dependencies(batch):
            variable.assign_add(1)
        return lambda: tf.convert_to_tensor(variable)

    def begin(self) -> None:
        """Counts a call at its beginning."""
        self._made().assign_add(1)

    def current(self) -> Callable[[], Any]:
        """Returns a function that reads the number of the step under way, from 1."""
        variable = self._made()
        return lambda: tf.convert_to_tensor(variable) + (0 if self._calls else 1)

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
