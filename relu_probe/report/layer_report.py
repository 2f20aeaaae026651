"""What do the numbers of one layer mean? The definitions, the law of addition; NumPy only.

A *neuron* is one channel of a ReLU's output, a *position* one value of it. A neuron is *active* at a position where its
output is above zero, and has a *gradient* there where dL/dz, the gradient of the loss with respect to the
pre-activation, is not zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.serialization import layer_from_dict, layer_to_dict

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

_ARRAYS = {"nan": np.bool_, "with_gradient": np.int64, "activation_sum": np.float64, "last_active": np.int64}


@dataclass(frozen=True, eq=False)
class LayerReport:  # noqa: PLW1641  # arrays have no hash
    """Counts of one layer, per neuron; immutable. `+` joins the counts of disjoint positions.

    Args:
        samples: samples seen, the N of "dead on N samples".
        positions: values seen of each neuron: a sample for a Dense output `(batch, n)`, a sample and place for
            `(batch, ..., n)`.
        active: `(neurons,)`, positions with output > 0.
        with_gradient: `(neurons,)`, positions with dL/dz != 0; None where no backward pass reached the layer.
        nan: `(neurons,)` bool, a NaN was seen.
        activation_sum: `(neurons,)` float64, the sum of the outputs; None where it was not asked for.
        last_active: `(neurons,)`, the training step (0-based, of this fit) at which the neuron was last active, -1 for
            never; None outside the training batches.
        frozen: the layer and all before it are frozen, so that no gradient flows through it.
        died, revived: neurons that did so since the probe's report before; None in a sum, and outside a probe.

    Raises:
        ValueError: the counts contradict each other.

    >>> layer = LayerReport(samples=4, positions=4, active=[0, 4, 2], with_gradient=[0, 0, 2])
    >>> layer.dead, layer.blocked
    (array([ True, False, False]), array([False,  True, False]))
    >>> (layer + layer).positions
    8
    """

    samples: int
    positions: int
    active: Counts
    with_gradient: Counts | None = None
    nan: Mask = None  # type: ignore[assignment]  # None is read as "no NaN seen"
    activation_sum: Floats | None = None
    last_active: Counts | None = None
    frozen: bool = False
    died: int | None = field(default=None, compare=False)
    revived: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "active", _frozen("active", self.active, np.int64))
        object.__setattr__(self, "nan", np.zeros_like(self.active, bool) if self.nan is None else self.nan)
        for name, dtype in _ARRAYS.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _frozen(name, value, dtype, self.active.shape))
        for name in ("samples", "positions"):
            object.__setattr__(self, name, _count(name, getattr(self, name)))
        self._check()

    def _check(self) -> None:
        """0 <= with_gradient <= active <= positions."""
        chain: list[tuple[str, Any]] = [("0", 0)]
        chain += [] if self.with_gradient is None else [("with_gradient", self.with_gradient)]
        chain += [("active", self.active), ("positions", self.positions)]
        for (low_name, low), (name, high) in pairwise(chain):
            if wrong := np.flatnonzero(low > high).tolist():
                raise ValueError(
                    f"{low_name} > {name} at neuron {wrong[0]}; expected 0 <= with_gradient <= active <= positions "
                    f"(positions is {self.positions:,}). Build reports from counts of the same positions."
                )

    @property
    def neurons(self) -> int:
        return len(self.active)

    @property
    def measured(self) -> bool:
        """Whether the layer saw anything at all."""
        return self.positions > 0 and self.neurons > 0

    @property
    def activation_rate(self) -> Floats:
        """`(neurons,)`, active / positions: 1 - APoZ (Hu et al. 2016, arXiv:1607.03250); nan where not measured."""
        return _rate(self.active, self.positions)

    @property
    def gradient_rate(self) -> Floats | None:
        """`(neurons,)`, with_gradient / positions; None without gradients."""
        return None if self.with_gradient is None else _rate(self.with_gradient, self.positions)

    @property
    def dead(self) -> Mask:
        """`(neurons,)`: measured, never active, no NaN seen."""
        dead: Mask = (self.active == 0) & ~self.nan & (self.positions > 0)
        return dead

    @property
    def blocked(self) -> Mask | None:
        """`(neurons,)`: active, and no gradient arrives; None without gradients."""
        return None if self.with_gradient is None else (self.active > 0) & (self.with_gradient == 0)

    @property
    def zero_gradient(self) -> Mask | None:
        """`(neurons,)`: dead or blocked; None without gradients."""
        return None if (blocked := self.blocked) is None else self.dead | blocked

    @property
    def dead_fraction(self) -> float:
        return fraction([self.dead] if self.measured else [])

    @property
    def zero_gradient_fraction(self) -> float:
        mask = self.zero_gradient
        return fraction([mask] if self.measured and mask is not None else [])

    def dormant(self, tau: float = 0.0) -> Mask:
        """`(neurons,)`: mean activation / the layer's mean of it <= tau (Sokar et al. 2023, arXiv:2302.12902).

        Another score than dead, never mixed up with it. In a layer whose every output is zero all are dormant.

        Raises:
            ValueError: the sums of the activations were not asked for, or tau is negative.
        """
        if self.activation_sum is None:
            raise ValueError(
                "dormant(tau) needs the sums of the activations, and this report has none; expected a report of "
                "measure(...), of ReluProbe(data=...), or of ReluProbe(activation_sum=True)."
            )
        if not tau >= 0:
            raise ValueError(f"tau is {tau!r}; expected a number >= 0, for example 0.025.")
        if not (self.measured and np.isfinite(self.activation_sum).all()):  # no mean to be compared with
            return np.zeros(self.neurons, bool)
        # sum_i <= tau * mean of the sums, multiplied out so that an all-zero layer needs no 0 / 0
        dormant: Mask = self.activation_sum <= tau * self.activation_sum.mean()
        return dormant

    def __add__(self, other: LayerReport) -> LayerReport:
        if not isinstance(other, LayerReport):
            return NotImplemented
        if self.neurons != other.neurons:
            raise ValueError(
                f"cannot add a layer of {self.neurons} neurons and one of {other.neurons}; expected reports of the "
                "same model. Add reports of one model only."
            )
        return LayerReport(
            samples=self.samples + other.samples,
            positions=self.positions + other.positions,
            active=self.active + other.active,
            nan=self.nan | other.nan,
            with_gradient=_both(np.add, self.with_gradient, other.with_gradient),
            activation_sum=_both(np.add, self.activation_sum, other.activation_sum),
            last_active=_both(np.maximum, self.last_active, other.last_active),
            frozen=self.frozen and other.frozen,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LayerReport):
            return NotImplemented
        return all(_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare)

    def __reduce__(self) -> Any:  # through __init__: a pickled array comes back writeable
        return type(self), tuple(getattr(self, f.name) for f in fields(self))

    def to_dict(self) -> dict[str, Any]:
        return layer_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerReport:
        return layer_from_dict(data, cls)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, (int, float, np.integer, np.floating)) or value % 1 or not value >= 0:
        raise ValueError(f"{name} is {value!r:.60}; expected a whole number >= 0.")
    return int(value)


def _frozen(name: str, value: Any, dtype: Any, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    try:
        array = value if _is_frozen(value, dtype) else np.array(value, dtype)  # a copy: nobody else can change it
        same = (
            array is value or dtype is np.float64 or np.array_equal(array, value)
        )  # not so for 1.5, "1", or 2 as a bool
    except (OverflowError, TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(f"{name} is {value!r:.60}; expected one value of type {np.dtype(dtype)} a neuron.")
    shape = array.shape if shape is None else shape
    if array.ndim != 1 or array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected one value a neuron, as `active` has: {shape}.")
    array.flags.writeable = False
    return array


def _is_frozen(value: Any, dtype: Any) -> bool:
    """Whether it is the array of another report, which need not be copied once more."""
    return isinstance(value, np.ndarray) and value.dtype == dtype and value.base is None and not value.flags.writeable


def _rate(counts: Counts, positions: int) -> Floats:
    return counts / positions if positions else np.full(len(counts), np.nan)


def fraction(masks: list[Mask]) -> float:
    total = sum(len(mask) for mask in masks)
    return int(sum(np.count_nonzero(mask) for mask in masks)) / total if total else float("nan")


def _both(join: Any, a: NDArray[Any] | None, b: NDArray[Any] | None) -> Any:
    """None + counts = None: half a count would pass for a whole one."""
    return None if a is None or b is None else join(a, b)


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    if isinstance(a, np.ndarray) and a.dtype.kind == "f":  # sums of floats are equal only to rounding
        return a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)
    return np.array_equal(a, b)
