"""Arrays with one value for each neuron: made read-only, combined, and compared."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_only(name: str, value: Any, dtype: Any, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Returns `value` as a read-only array; a copy, unless it is one already.

    Raises:
        ValueError: it has another shape than `shape`, or values that the type `dtype` cannot hold.
    """
    try:
        array = value if _is_read_only(value, dtype) else np.array(value, dtype)
        # A float64 may be rounded. An int64 or bool must not be: 1.5, "1", and 2 for a bool are errors.
        same = array is value or dtype is np.float64 or np.array_equal(array, value)
    except (OverflowError, TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(f"{name} is {value!r:.60}; expected one value of type {np.dtype(dtype)} a neuron.")
    shape = array.shape if shape is None else shape
    if array.ndim != 1 or array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected one value a neuron, as `active` has: {shape}.")
    array.flags.writeable = False
    return array


def rate(counts: NDArray[np.int64], positions: int) -> NDArray[np.float64]:
    """Returns `counts / positions`; nan without positions."""
    return counts / positions if positions else np.full(len(counts), np.nan)


def combined(combine: Any, a: NDArray[Any] | None, b: NDArray[Any] | None) -> Any:
    """Returns `combine(a, b)`; None if one is None: half a count would pass for a whole one."""
    return None if a is None or b is None else combine(a, b)


def equal(a: Any, b: Any) -> bool:
    """Returns whether two values or arrays are equal, or both None; sums of floats are equal only to rounding."""
    if a is None or b is None:
        return a is b
    if isinstance(a, np.ndarray) and a.dtype.kind == "f":
        return a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)
    return np.array_equal(a, b)


def _is_read_only(value: Any, dtype: Any) -> bool:
    """Returns whether `value` can be kept without a copy: a read-only array of the type, in read-only memory.

    A read-only view of a writeable array changes with that array. So the array that owns the memory, and each view between
    the two, must be read-only too. Memory that no array owns (a buffer, a mapped file) may change at any time.
    """
    if type(value) is not np.ndarray or value.dtype != dtype:
        return False
    while type(value) is np.ndarray and not value.flags.writeable:
        value = value.base
    return value is None
