"""Interval arithmetic on boxes of inputs (Gowal et al. 2018, arXiv:1810.12715). NumPy only.

The bounds hold for the model's own floating-point evaluation, in whatever order it adds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.layer_report import Floats

Product = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]

_FLOAT64_UNIT = 2.0**-53  # the unit roundoff of float64, in which the bounds themselves are computed


class Box(NamedTuple):
    """All x with low <= x <= high; two arrays of one shape."""

    low: Floats
    high: Floats


class Arithmetic(NamedTuple):
    """The floating-point arithmetic of a model: unit roundoff, smallest positive normal number, largest number."""

    unit: float
    tiny: float
    largest: float

    @classmethod
    def of(cls, dtype: Any, unit: float | None = None) -> Arithmetic:
        """The arithmetic of a NumPy floating-point type, with another `unit` roundoff if one is given."""
        info = np.finfo(dtype)
        return cls(float(info.eps) / 2 if unit is None else unit, float(info.tiny), float(info.max))


def read_box(bounds: Any, shape: tuple[int, ...]) -> Box:
    """`bounds=(low, high)`, two scalars or arrays of the input's shape, as a box of that shape.

    Raises:
        ValueError: bounds is not such a pair, not finite, or has low > high.
    """
    try:
        low, high = (np.asarray(bound, np.float64) for bound in bounds)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds is {bounds!r:.80}; expected (low, high), two numbers or two arrays of the input's shape {shape}."
        ) from None
    for name, bound in (("low", low), ("high", high)):
        if bound.shape not in ((), shape):
            raise ValueError(
                f"the {name} of bounds has shape {bound.shape}; expected a number, or an array of the input's shape "
                f"{shape}."
            )
        if not np.all(np.isfinite(bound)):
            raise ValueError(
                f"the {name} of bounds is not finite; expected the smallest and largest value that an input can take."
            )
    if np.any(low > high):
        raise ValueError(
            f"bounds has low > high ({float(np.max(low - high)):g} above at most); expected (low, high). Swap them."
        )
    return Box(np.broadcast_to(low, shape).copy(), np.broadcast_to(high, shape).copy())


def as_evaluated(box: Box, dtype: Any) -> Box:
    """The box of the inputs after they are cast to `dtype`: rounding is monotone, so the ends may be cast instead."""
    with np.errstate(over="ignore"):  # an end that overflows becomes infinite, and nothing is certified
        return Box(*(bound.astype(dtype).astype(np.float64) for bound in box))


def through_affine(
    box: Box, kernel: NDArray[Any], bias: NDArray[Any] | None, arithmetic: Arithmetic, product: Product = np.matmul
) -> Box | None:
    """Bounds `(..., units)` of x @ kernel + bias over the box `(..., inputs)`.

    None if a sum could overflow, or a weight is not finite.

    The largest z over a box from l to u is w+.u - w-.l + b. A bound on the rounding of n products and n sums, in any
    order and fused or not, is added: gamma(n + 2) times sum |w||x| + |b| (Higham 2002, Accuracy and Stability of
    Numerical Algorithms, section 3.1), and an underflow in each operation.

    Args:
        box: bounds of x.
        kernel: the weights.
        bias: `(units,)`; None for none.
        arithmetic: that of the model.
        product: what multiplies inputs by weights and adds, such as a convolution, in float64.

    >>> box = Box(np.zeros(2), np.ones(2))
    >>> float(through_affine(box, np.array([[1.0], [-2.0]]), None, Arithmetic.of(np.float32)).high[0].round(5))
    1.0
    """
    kernel = np.asarray(kernel, np.float64)
    bias = np.zeros(1) if bias is None else np.asarray(bias, np.float64)
    positive, negative = np.maximum(kernel, 0), np.minimum(kernel, 0)
    with np.errstate(over="ignore", invalid="ignore"):  # with infinite or NaN weights `error` is infinite too
        low = product(box.low, positive) + product(box.high, negative) + bias
        high = product(box.high, positive) + product(box.low, negative) + bias
        error = _rounding(box, kernel, bias, arithmetic, product)
    return _widened(low, high, error)


def through_scaling(box: Box, mean: Any, scale: Any, offset: Any, arithmetic: Arithmetic) -> Box | None:
    """Bounds of (x - mean) * scale + offset, computed in any order, where the scale itself takes up to 8 operations.

    None if a value could overflow, or an argument is not finite.

    >>> box = Box(np.zeros(1), np.ones(1))
    >>> float(through_scaling(box, 0.0, np.array([-2.0]), 1.0, Arithmetic.of(np.float32)).low[0].round(5))
    -1.0
    """
    with np.errstate(over="ignore", invalid="ignore"):
        ends = [(bound - mean) * scale + offset for bound in box]
        size = np.abs(scale) * (_reach(box) + np.abs(mean)) + np.abs(offset)
        factors = 1 + np.abs(scale) + np.abs(mean) + _reach(box)
        error = _error(size, 16, arithmetic.tiny * 16 * factors, arithmetic)
    return _widened(np.minimum(*ends), np.maximum(*ends), error)


def through_sum(boxes: list[Box], arithmetic: Arithmetic) -> Box | None:
    """Bounds of the sum of values in boxes of shapes that broadcast, added in any order; None if it could overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (sum(bounds[1:], start=bounds[0]) for bounds in zip(*boxes))
        reaches = [_reach(box) for box in boxes]
        size = sum(reaches[1:], start=reaches[0])
        error = _error(size, len(boxes), arithmetic.tiny * len(boxes), arithmetic)
    return _widened(low, high, error)


def through_average(box: Box, terms: int, average: Callable[[Floats], Floats], arithmetic: Arithmetic) -> Box | None:
    """Bounds of averages of at most so many values in the box; None if a sum could overflow.

    Args:
        box: bounds of the values.
        terms: the largest number of values that are averaged.
        average: takes the averages, in float64.
        arithmetic: that of the model.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        error = _error(average(_reach(box)), terms + 2, arithmetic.tiny * 4 * terms, arithmetic, terms)
        return _widened(average(box.low), average(box.high), error)


def through_relu(box: Box, threshold: float, ceiling: float | None) -> Box:
    """Bounds of a ReLU of values in the box. A ReLU is monotone, so they are its values at the ends of the box."""
    return Box(
        *(np.where(bound > threshold, np.minimum(bound, np.inf if ceiling is None else ceiling), 0) for bound in box)
    )


def _rounding(box: Box, kernel: Floats, bias: Floats, arithmetic: Arithmetic, product: Product) -> Floats:
    """`(..., units)`: the largest rounding error of x @ kernel + bias; infinite if a partial sum may overflow.

    It holds whether or not the device flushes subnormal numbers to zero.
    """
    reach = _reach(box)
    size = product(reach, np.abs(kernel)) + np.abs(bias)
    terms = kernel.size // size.shape[-1] + 1
    underflow = arithmetic.tiny * (4 * terms + np.abs(kernel).sum() + reach.sum())
    error = _error(size, terms + 1, underflow, arithmetic)
    # Products with a zero are zero, so that a sum of nothing else is the bias, unless that is flushed to zero.
    nothing = product((reach != 0).astype(np.float64), (kernel != 0).astype(np.float64)) == 0
    return np.where(nothing & np.isfinite(error) & ((bias == 0) | (np.abs(bias) >= arithmetic.tiny)), 0, error)


def _error(size: Any, operations: int, underflow: Any, arithmetic: Arithmetic, growth: int = 1) -> Any:
    """The largest error of so many operations, infinite if one may overflow.

    Args:
        size: the same sum of the terms' absolute values.
        operations: their largest number on the way of one term, in the model and in the bounds themselves.
        underflow: the largest error by underflow.
        arithmetic: that of the model.
        growth: by how much a value on the way may be larger than `size`.
    """
    relative = _gamma(operations, arithmetic.unit) + 3 * _gamma(operations, _FLOAT64_UNIT)
    error = (relative * size + underflow) * (1 + 1e-6)
    return np.where(growth * (size + error) < arithmetic.largest, error, np.inf)


def _widened(low: Any, high: Any, error: Any) -> Box | None:
    return Box(low - error, high + error) if np.all(np.isfinite(error)) else None


def _reach(box: Box) -> Floats:
    return np.maximum(np.abs(box.low), np.abs(box.high))


def _gamma(n: int, unit: float) -> float:
    """Higham's gamma(n) = n u / (1 - n u) with the unit roundoff u; infinite if n u >= 1, where it bounds nothing."""
    return n * unit / (1 - n * unit) if n * unit < 1 else float("inf")
