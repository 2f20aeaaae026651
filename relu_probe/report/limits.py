"""Limits on the dead and zero-gradient fractions of layers, and the error texts when they are exceeded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from relu_probe.report.coverage import coverage_notes
from relu_probe.report.layer_report import LayerReport, Mask, any_gradients
from relu_probe.utils.foreign_text import shown, shown_names
from relu_probe.utils.validation import check_fraction
from relu_probe.utils.wording import number

_MAX_NEURONS_NAMED = 10  # of each layer, in an error text


class ExceededLimit(NamedTuple):
    """A limit, and a layer in which a larger fraction of the neurons is dead or without gradient. `str()` says so.

    Args:
        layer: the layer's name.
        limit: "max_dead" or "max_zero_gradient".
        maximum: the value of the limit.
        mask: `(neurons,)`, the neurons that count against the limit.
        nan_neurons: how many of them count because of a NaN.
        samples: the number of samples that the layer saw.
    """

    layer: str
    limit: str
    maximum: float
    mask: Mask
    nan_neurons: int
    samples: int

    @property
    def fraction(self) -> float:
        """The share of the layer's neurons that count against the limit."""
        return float(np.mean(self.mask))

    @property
    def summary(self) -> str:
        """The layer, the number of its neurons that count against the limit, and the limit."""
        word = {"max_dead": "dead", "max_zero_gradient": "without gradient"}[self.limit]
        counts = {word: int(self.mask.sum()) - self.nan_neurons, "NaN": self.nan_neurons}
        first, *others = [(count, what) for what, count in counts.items() if count]
        text = ", ".join([f"{first[0]:,} of {len(self.mask):,} {first[1]}", *(f"{n:,} {what}" for n, what in others)])
        return f"{shown(self.layer)}: {text} (limit {100 * self.maximum:g} %)"

    def __str__(self) -> str:
        neurons = np.flatnonzero(self.mask)
        names = ", ".join(map(str, neurons[:_MAX_NEURONS_NAMED])) + ", ..." * (len(neurons) > _MAX_NEURONS_NAMED)
        noun = "neuron" if len(neurons) == 1 else "neurons"
        return f"{self.summary} on {number(self.samples, 'sample')}; {noun} {names}"


@dataclass(frozen=True)
class Limits:
    """The largest fractions of a layer's neurons that may be dead, or without gradient; None for no limit.

    The limits hold for each layer. In the fraction of the whole model, a small layer that is entirely dead hardly shows.

    Raises:
        ValueError: a limit is outside [0, 1].

    >>> layers = {"hidden": LayerReport(samples=8, positions=8, active=[0, 3, 8])}
    >>> print(*Limits(max_dead=0.1).exceeded_by(layers))
    hidden: 1 of 3 dead (limit 10 %) on 8 samples; neuron 0
    """

    max_dead: float | None = None
    max_zero_gradient: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None:
                check_fraction(name, value)

    def __bool__(self) -> bool:
        return self != Limits()

    def __str__(self) -> str:
        return " and ".join(f"{name}={value:g}" for name, value in asdict(self).items() if value is not None)

    def exceeded_by(self, layers: Mapping[str, LayerReport]) -> list[ExceededLimit]:
        """Returns the limits that measured layers exceed: first those on dead neurons, of these the largest fraction first."""
        checked = [
            _checked(name, layer, limit, maximum)
            for name, layer in layers.items()
            for limit, maximum in asdict(self).items()
            if maximum is not None
        ]
        exceeded = [one for one in checked if one is not None and one.fraction > one.maximum]
        return sorted(exceeded, key=lambda one: (one.limit != "max_dead", -one.fraction))

    def missing_gradients(self, layers: Mapping[str, LayerReport]) -> str:
        """Returns why `max_zero_gradient` cannot be checked on these layers; "" if it can."""
        # A frozen layer has no gradients because it was asked to have none.
        frozen_allowed = any_gradients(layers.values())
        without = [
            name
            for name, layer in layers.items()
            if layer.with_gradient is None and not (layer.frozen and frozen_allowed)
        ]
        if self.max_zero_gradient is None or not without:
            return ""
        return (
            f"max_zero_gradient={self.max_zero_gradient:g} needs gradients, and the report has none of "
            f"{shown_names(without)}; expected a report of a compiled model on (x, y). Compile the model and pass labels, "
            "name the other layers in layers=, or leave max_zero_gradient out."
        )


def checked_limits(layers: Mapping[str, LayerReport], limits: Limits, unseen: Mapping[str, str]) -> list[ExceededLimit]:
    """Returns the limits that the layers exceed; `unseen` are the ReLUs that are not counted.

    Raises:
        AssertionError: a layer was not measured.
        ValueError: there is no limit, or one on gradients and a layer without.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    if not limits:
        raise ValueError("max_dead and max_zero_gradient are both None; expected a limit. Pass max_dead=0.0 or more.")
    if why := unmeasured(layers, unseen):
        raise AssertionError(why)
    if why := limits.missing_gradients(layers):
        raise ValueError(why)
    return limits.exceeded_by(layers)


def unmeasured(layers: Mapping[str, LayerReport], unseen: Mapping[str, str]) -> str:
    """Returns which layers were not measured, as an error text; "" if all were."""
    if unseen and not layers:
        return (
            f"not measured: no ReLU is counted; {coverage_notes(unseen, ())[0]}; expected at least one ReLU that can be "
            "counted, such as a ReLU layer outside of loops."
        )
    names = [name for name, layer in layers.items() if not layer.measured]
    if layers and not names:
        return ""
    return (
        f"not measured: {shown_names(names) or 'the report has no layers'} (0 samples), so nothing is known of the neurons; "
        "expected at least 1 sample in each layer. Measure on data that reaches them, or name the other layers in layers=."
    )


def explain(exceeded: list[ExceededLimit]) -> str:
    """Returns a line that names every layer above a limit, for summaries that show one line, and one for each exceeded limit."""
    lines = [str(one) for one in exceeded]
    return "\n".join(lines if len(lines) == 1 else ["; ".join(one.summary for one in exceeded), *lines])


def not_all_counted(unseen: Mapping[str, str]) -> str:
    """Returns the error text of `require_all`."""
    return (
        f"{coverage_notes(unseen, ())[0]}; require_all=True expects every ReLU of the model to be counted. Make them layers "
        "that can be counted, or leave require_all out."
    )


def _checked(name: str, layer: LayerReport, limit: str, maximum: float) -> ExceededLimit | None:
    mask = layer.dead if limit == "max_dead" else layer.zero_gradient
    if mask is None or not layer.measured:
        return None
    # A neuron with a NaN is not known to be dead, but not shown to be alive either.
    nan_neurons = int(np.count_nonzero(layer.nan))
    return ExceededLimit(name, limit, maximum, mask | layer.nan, nan_neurons, layer.samples)
