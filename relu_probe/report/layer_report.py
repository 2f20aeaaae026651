"""Counts of one layer, and the rates, masks and fractions that follow from them.

A *neuron* is one channel of a ReLU's output, a *position* is one value of a neuron. A neuron is *active* at a position if
its output there is above zero. It has a *gradient* there if dL/dz, the gradient of the loss with respect to the
pre-activation, is not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.neuron_arrays import combined, equal, rate, read_only
from relu_probe.report.serialization import checked_fields, json_values
from relu_probe.report.share import Share, pooled
from relu_probe.utils.wording import number

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

_ARRAYS = {"nan": np.bool_, "with_gradient": np.int64, "activation_sum": np.float64, "last_active": np.int64}


@dataclass(frozen=True, eq=False, repr=False)
class LayerReport:
    """Immutable counts of one layer, per neuron. `+` adds the counts of disjoint positions.

    Args:
        samples: the number of samples seen, the N of "dead on N samples", at most `positions`. Of the calls in one training
            step, the one on most samples counts.
        positions: the number of values seen of each neuron: one per sample for a Dense output `(batch, n)`, one per sample
            and place for `(batch, ..., n)`.
        active: `(neurons,)`, the number of positions with output > 0.
        with_gradient: `(neurons,)`, the number of positions with dL/dz != 0; 0 without a path from the loss. None if no gradient was
            asked for, or if the layer is frozen.
        nan: `(neurons,)` bool, whether a NaN was seen; None means no NaN.
        activation_sum: `(neurons,)` float64, the sum of the outputs; None if it was not asked for.
        last_active: `(neurons,)`, the training step of this fit, or the call in this `watch`, counted from 0, at which the
            neuron was last active; -1 if it never was. None for counts that come from neither.
        frozen: whether the layer and all layers before it are frozen, so that no gradient flows through it.
        died: the number of neurons that died since the probe's previous report; None in a sum, and outside a probe.
        revived: the number of neurons that revived since then; None likewise.

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
    nan: Mask = None  # type: ignore[assignment]
    activation_sum: Floats | None = None
    last_active: Counts | None = None
    frozen: bool = False
    died: int | None = field(default=None, compare=False)
    revived: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "active", read_only("active", self.active, np.int64))
        object.__setattr__(self, "nan", np.zeros_like(self.active, bool) if self.nan is None else self.nan)
        for name, dtype in _ARRAYS.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, read_only(name, value, dtype, self.active.shape))
        for name in ("samples", "positions"):
            object.__setattr__(self, name, _whole_number(name, getattr(self, name)))
        self._check()

    def _check(self) -> None:
        """Checks 0 <= with_gradient <= active <= positions."""
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
        """The number of neurons."""
        return len(self.active)

    @property
    def measured(self) -> bool:
        """Whether the layer saw any position."""
        return self.positions > 0 and self.neurons > 0

    @property
    def has_gradients(self) -> bool:
        """Whether a backward pass reached the layer."""
        return self.with_gradient is not None

    @property
    def judged(self) -> Mask:
        """`(neurons,)`, whether the neuron can be judged: it was measured, and no NaN was seen. Fractions are over these."""
        judged: Mask = ~self.nan & self.measured
        return judged

    @property
    def activation_rate(self) -> Floats:
        """`(neurons,)`, active / positions: 1 - APoZ (Hu et al. 2016, arXiv:1607.03250); nan if not measured."""
        return rate(self.active, self.positions)

    @property
    def gradient_rate(self) -> Floats | None:
        """`(neurons,)`, with_gradient / positions; None without gradients."""
        return None if self.with_gradient is None else rate(self.with_gradient, self.positions)

    @property
    def dead(self) -> Mask:
        """`(neurons,)`, whether the neuron was measured, never active, and without NaN."""
        dead: Mask = (self.active == 0) & ~self.nan & (self.positions > 0)
        return dead

    @property
    def blocked(self) -> Mask | None:
        """`(neurons,)`, whether the neuron was active, received no gradient, and is without NaN; None without gradients."""
        return None if self.with_gradient is None else (self.active > 0) & (self.with_gradient == 0) & ~self.nan

    @property
    def zero_gradient(self) -> Mask | None:
        """`(neurons,)`, whether the neuron is dead or blocked; None without gradients."""
        return None if (blocked := self.blocked) is None else self.dead | blocked

    @cached_property
    def shares(self) -> Mapping[str, Share]:
        """The shares of the neurons that are "dead", "blocked", "zero_gradient" or "nan"; without gradients, only two of them.

        They are kept: the masks of a wide layer take time, and tables, charts and limits all need these numbers.
        """
        judged, nan = int(np.count_nonzero(self.judged)), int(np.count_nonzero(self.nan))
        shares = {"dead": Share(int(np.count_nonzero(self.dead)), judged)}
        shares["nan"] = Share(nan, self.neurons) if self.measured else Share(0, 0)
        if self.blocked is not None:
            shares["blocked"] = Share(int(np.count_nonzero(self.blocked)), judged)
            shares["zero_gradient"] = Share(shares["dead"].neurons + shares["blocked"].neurons, judged)
        return MappingProxyType(shares)

    @property
    def dead_fraction(self) -> float:
        """Dead neurons / neurons that can be judged; nan if there are none."""
        return pooled([self], "dead").fraction

    @property
    def zero_gradient_fraction(self) -> float:
        """Zero-gradient neurons / neurons that can be judged; nan if there are none, or without gradients."""
        return pooled([self], "zero_gradient").fraction

    @property
    def blocked_fraction(self) -> float:
        """Blocked neurons / neurons that can be judged; nan if there are none, or without gradients."""
        return pooled([self], "blocked").fraction

    @property
    def nan_fraction(self) -> float:
        """Neurons at which a NaN was seen / neurons; nan if the layer was not measured."""
        return pooled([self], "nan").fraction

    def dormant(self, tau: float = 0.0) -> Mask:
        """Returns `(neurons,)`: mean activation / the layer's mean of it <= tau (Sokar et al. 2023, arXiv:2302.12902).

        This is another score than `dead`. If every output of the layer is zero, all its neurons are dormant.

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
        if not (self.measured and np.isfinite(self.activation_sum).all()):  # the layer has no mean to compare with
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
            with_gradient=combined(np.add, self.with_gradient, other.with_gradient),
            activation_sum=combined(np.add, self.activation_sum, other.activation_sum),
            last_active=combined(np.maximum, self.last_active, other.last_active),
            frozen=self.frozen and other.frozen,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LayerReport):
            return NotImplemented
        return all(equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare)

    def __hash__(self) -> int:  # of the counts alone: sums of floats are equal to rounding only
        return hash((self.samples, self.positions, self.active.tobytes(), self.nan.tobytes()))

    def __repr__(self) -> str:
        blocked = 0 if self.blocked is None else int(self.blocked.sum())
        others = [
            f", {count:,} {what}" for what, count in (("blocked", blocked), ("NaN", int(self.nan.sum()))) if count
        ]
        found = (
            f"{int(self.dead.sum()):,} of {self.neurons:,} dead{''.join(others)}" if self.measured else "not measured"
        )
        return f"<LayerReport: {found}, on {number(self.samples, 'sample')}>"

    def __reduce__(self) -> Any:  # through __init__: unpickled arrays are writeable
        return type(self), tuple(getattr(self, f.name) for f in fields(self))

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts as numbers, strings, lists and None, ready for JSON."""
        return json_values({f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "the layer") -> LayerReport:
        """Returns the report that `to_dict` wrote.

        Args:
            data: what `to_dict` returned.
            where: what error messages call the layer.

        Raises:
            ValueError: `data` is damaged, or no layer's report.
        """
        values = checked_fields(data, fields(cls), where)
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{where} is damaged: {error}") from error


def any_gradients(layers: Iterable[LayerReport]) -> bool:
    """Returns whether a backward pass reached any of the layers."""
    return any(layer.has_gradients for layer in layers)


def most_samples(layers: Iterable[LayerReport]) -> int:
    """Returns the number of samples of the layer that saw the most; 0 if there are no layers."""
    return max((layer.samples for layer in layers), default=0)


def _whole_number(name: str, value: Any) -> int:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or value % 1 or not 0 <= value < 2**63:
        raise ValueError(f"{name} is {value!r:.60}; expected a whole number >= 0.")
    return int(value)
