"""Recognition of ReLU functions by what they compute, not by their names.

A function is evaluated on a few points. A hard ReLU is zero on all negative points and positive on large ones.
"""

import io
import warnings
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.structure.pure_function import as_pure_function
from relu_probe.structure.random_state import random_states_restored

_NEGATIVE = (-1.0, -1e-3, -1e4, -0.1, -1e-6, -1e-20, -0.5, -3.0, -100.0)  # most functions fail at the first
_POSITIVE = (1e-3, 0.1, 0.5, 1.0, 3.0, 100.0)
_LARGE = (1e4, 1e6)
_recognized: dict[Hashable, "ReluFunction | None"] = {}  # each function is evaluated once in a process


class ReluFunction(NamedTuple):
    """A hard ReLU.

    Args:
        ceiling: the bound c of a bounded ReLU (ReLU6): f(1e4) == f(1e6) == c. None if it is not bounded.
        threshold: the largest float32 at which it is zero: 0, or the `threshold` of a ReLU that has one.
        identity: f(z) == z above zero, up to the ceiling.
    """

    ceiling: float | None
    threshold: float
    identity: bool


def is_relu(function: Any) -> bool:
    """Whether a function of one tensor is zero on all negative points, never negative, and positive on large ones.

    A function that may have effects is never called, and so is none: see `pure_function`.
    """
    return _recognize(function) is not None


def relu_ceiling(function: Any) -> float | None:
    """Returns the bound of a bounded ReLU, None if it is not bounded."""
    relu = _recognize(function)
    return None if relu is None else relu.ceiling


def relu_threshold(function: Any) -> float:
    """Returns the largest float32 at which the ReLU is zero."""
    relu = _recognize(function)
    return 0.0 if relu is None else relu.threshold


def leaves_unchanged(function: Any, ceiling: float | None) -> bool:
    """Whether a ReLU changes none of the values that another ReLU, bounded at `ceiling`, returns."""
    relu = _recognize(function)
    if relu is None or not relu.identity:
        return False
    return relu.ceiling is None or (ceiling is not None and ceiling <= relu.ceiling)


def _recognize(function: Any) -> ReluFunction | None:
    if (pure := as_pure_function(function)) is None:
        return None
    if pure.key not in _recognized:
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of a softmax over one value
            # A thread is eager also while a graph is traced; in `tf.init_scope` a tape records nothing.
            with ThreadPoolExecutor(1) as thread:
                _recognized[pure.key] = thread.submit(_evaluated, pure.call).result()
    return _recognized[pure.key]


def _evaluated(call: Callable[..., Any]) -> ReluFunction | None:
    """Traces the function, which calls it once, and runs the trace, unless an operation has side effects."""
    with random_states_restored(), suppress(Exception):  # it is no function of one tensor
        return _relu_of(_traced(call))
    return None


def _traced(call: Callable[..., Any]) -> Callable[[float], tuple[float, float]]:
    """Returns a function that evaluates f(point) and f'(point). Raises ValueError if an operation of f has side effects."""

    def with_gradient(point: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = call(point)
        return value, tape.gradient(value, point, unconnected_gradients="zero")

    spec = tf.TensorSpec((1, 1), tf.float32)
    trace = tf.function(with_gradient, autograph=False).get_concrete_function(spec)
    if any(op.op_def.is_stateful for op in trace.graph.get_operations()):
        raise ValueError("draws random numbers, or assigns a variable")

    def evaluate(point: float) -> tuple[float, float]:
        # A point is evaluated alone: a softmax over several points looks like a ReLU.
        value, gradient = (np.asarray(found) for found in trace(tf.constant([[point]], tf.float32)))
        return (float(value[0, 0]), float(gradient[0, 0])) if value.shape == (1, 1) else (np.nan, 0.0)

    return evaluate


def _relu_of(evaluate: Callable[[float], tuple[float, float]]) -> ReluFunction | None:
    def value(point: float) -> float:
        return evaluate(point)[0]

    zero = all(value(point) == 0 for point in _NEGATIVE)
    if not (zero and all(value(point) >= 0 for point in _POSITIVE) and all(value(point) > 0 for point in _LARGE)):
        return None
    threshold, (low, high) = _threshold(value), (value(point) for point in _LARGE)
    points = (1e-6, *_POSITIVE, *_LARGE, threshold * (1 + 1e-6))
    if not any(evaluate(point)[1] for point in points):
        return None  # no gradient passes a step function, such as `cast(x > 0)`
    ceiling = low if low == high and np.isfinite(low) else None
    unbounded = [*_POSITIVE, *_LARGE] if ceiling is None else [*(p for p in _POSITIVE if p < ceiling), ceiling]
    identity = threshold == 0 and all(value(point) == np.float32(point) for point in unbounded)
    return ReluFunction(ceiling, threshold, identity)


def _threshold(value: Callable[[float], float]) -> float:
    """The largest float32 at which the function is zero, by bisection."""
    low, high = np.float32(0), np.float32(_LARGE[0])
    if value(1e-6) > 0:
        return 0.0
    while (middle := np.float32((low + high) / 2)) not in (low, high):
        low, high = (low, middle) if value(float(middle)) > 0 else (middle, high)
    return float(low)
