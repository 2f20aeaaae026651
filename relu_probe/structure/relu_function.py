"""Recognition of ReLU functions by what they compute, not by their names.

A function is evaluated on a few points. A hard ReLU is zero on all negative points and positive on large ones.
"""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.structure.keras_layers import is_defined_by_keras, keras_class

_NEGATIVE = (-1.0, -1e-3, -1e4, -0.1, -1e-6, -1e-20, -0.5, -3.0, -100.0)  # most functions fail at the first
_POSITIVE = (1e-3, 0.1, 0.5, 1.0, 3.0, 100.0)
_LARGE = (1e4, 1e6)
# Functions of Keras and TensorFlow that were recognised as ReLUs: the 17 evaluations of one take milliseconds.
_known: list[Any] = []


def is_relu(function: Any) -> bool:
    """Whether a function of one tensor is zero on all negative points, never negative, and positive on large ones."""
    if any(function is known for known in _known):
        return True
    found = _looks_like_relu(function)
    if found and _is_library_function(function):
        _known.append(function)
    return found


def relu_ceiling(function: Any) -> float | None:
    """Returns the bound c of a bounded ReLU (ReLU6): f(1e4) == f(1e6) == c. None if it is not bounded."""
    low, high = (_value(function, point) for point in _LARGE)
    return low if low == high and np.isfinite(low) else None


def relu_threshold(function: Any) -> float:
    """Returns the largest float32 at which the ReLU is zero: 0, or the `threshold` of a ReLU that has one."""
    low, high = np.float32(0), np.float32(_LARGE[0])
    if _value(function, 1e-6) > 0:
        return 0.0
    while (middle := np.float32((low + high) / 2)) not in (low, high):
        low, high = (low, middle) if _value(function, float(middle)) > 0 else (middle, high)
    return float(low)


def leaves_unchanged(function: Any, ceiling: float | None) -> bool:
    """Whether a ReLU changes none of the values that another ReLU, bounded at `ceiling`, returns."""
    points = [*_POSITIVE, *_LARGE] if ceiling is None else [ceiling, *(p for p in _POSITIVE if p < ceiling)]
    return relu_threshold(function) == 0 and all(_value(function, p) == np.float32(p) for p in points)


def _is_library_function(function: Any) -> bool:
    """Whether it stands at module level in Keras or TensorFlow, and so never changes.

    A lambda, a method or a function of the user's may compute something else tomorrow.
    """
    module = str(getattr(function, "__module__", ""))
    known = is_defined_by_keras(function) or module.startswith("tensorflow.")
    return known and getattr(sys.modules.get(module), str(getattr(function, "__name__", "")), None) is function


def _looks_like_relu(function: Any) -> bool:
    return (
        not _has_side_effects(function)
        and all(_value(function, point) == 0 for point in _NEGATIVE)
        and all(_value(function, point) >= 0 for point in _POSITIVE)
        and all(_value(function, point) > 0 for point in _LARGE)
        and _has_gradient(function)
    )


def _has_gradient(function: Any) -> bool:
    """Whether a gradient passes the function at a positive point. None passes a step function, such as `cast(x > 0)`."""
    points = (1e-6, *_POSITIVE, *_LARGE, relu_threshold(function) * (1 + 1e-6))
    with ThreadPoolExecutor(
        1
    ) as thread:  # which is eager also while a graph is traced; in `tf.init_scope` a tape records nothing
        return thread.submit(lambda: any(_gradient(function, point) for point in points)).result()


def _gradient(function: Any, point: float) -> float:
    """df/dx at the point; 0 if there is none."""
    try:
        with tf.GradientTape() as tape:
            x = tf.constant([[point]], tf.float32)
            tape.watch(x)
            value = function(x)
        gradient = tape.gradient(value, x)
        return 0.0 if gradient is None else float(gradient[0, 0])
    except Exception:
        return 0.0


def _has_side_effects(function: Any) -> bool:
    """Whether a call draws random numbers or assigns a variable, so that evaluating the function would change the training.

    The function is only traced to find out, never called. Keras's own functions have no side effects.
    """
    layer = getattr(function, "__self__", None)
    inner = getattr(layer, "activation", None) or getattr(layer, "function", None)  # of an Activation, of a Lambda
    if _is_library_function(inner or function) or (keras_class(layer) and inner is None):
        return False
    try:
        with tf.init_scope(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            point = tf.TensorSpec((1, 1), tf.float32)
            graph = tf.function(function, autograph=False).get_concrete_function(point).graph
        return any(op.op_def.is_stateful and op.type != "ReadVariableOp" for op in graph.get_operations())
    except Exception:
        return True  # a function that cannot be called on a tensor: nothing is known of its effects


def _value(function: Any, point: float) -> float:
    """f(point), evaluated alone as a `(1, 1)` tensor; nan if that fails. A softmax over several points looks like a ReLU."""
    try:
        with tf.init_scope(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of a softmax over one value
            value = np.asarray(function(tf.constant([[point]], tf.float32)))
        return float(value[0, 0]) if value.shape == (1, 1) else float("nan")
    except Exception:
        return float("nan")
