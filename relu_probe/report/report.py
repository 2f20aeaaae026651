"""What do the numbers of a model mean? Its layers pooled, the law of addition; those of a layer are in `counts.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from types import MappingProxyType
from typing import Any

from relu_probe.report.layer_report import LayerReport, fraction
from relu_probe.report.serialization import report_from_dict, report_to_dict


@dataclass(frozen=True)
class Report:
    """What one measurement found: a `LayerReport` for each counted layer; immutable. `str()` is the table.

    Args:
        layers: name -> `LayerReport`, in the model's order.
        epoch: counts from 0, as Keras does; None outside a fit.
        source: "train", "data", "measure" or "watch".
        incomplete: why something is missing from these counts; "" where nothing is.

    >>> half = LayerReport(samples=4, positions=4, active=[0, 4])
    >>> report = Report({"dense": half}, source="measure")
    >>> report.dead_fraction
    0.5
    >>> report + Report.empty() == report
    True
    >>> report["dense"].activation_rate
    array([0., 1.])
    """

    layers: Mapping[str, LayerReport] = field(default_factory=dict)
    epoch: int | None = None
    source: str = ""
    incomplete: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))

    @classmethod
    def empty(cls) -> Report:
        """The zero of `+`."""
        return cls()

    def __getitem__(self, name: str) -> LayerReport:
        try:
            return self.layers[name]
        except KeyError:
            raise KeyError(
                f"no layer {name!r} in this report; its layers are {', '.join(self.layers) or 'none'}."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    @property
    def samples(self) -> int:
        """Of the layer that saw most."""
        return max((layer.samples for layer in self.layers.values()), default=0)

    @property
    def dead_fraction(self) -> float:
        """Dead neurons / neurons, all measured layers pooled (not the mean of the layers); nan where there is none."""
        return fraction([layer.dead for layer in self.layers.values() if layer.measured])

    @property
    def zero_gradient_fraction(self) -> float:
        """Zero-gradient neurons / neurons, pooled over the measured layers that a backward pass reached."""
        layers = [layer for layer in self.layers.values() if layer.measured]
        return fraction([mask for layer in layers if (mask := layer.zero_gradient) is not None])

    @property
    def has_gradients(self) -> bool:
        return any(layer.with_gradient is not None for layer in self.layers.values())

    def __add__(self, other: Report) -> Report:
        if not isinstance(other, Report):
            return NotImplemented
        names = list(dict.fromkeys([*self.layers, *other.layers]))
        parts = [[r.layers[n] for r in (self, other) if n in r.layers] for n in names]
        epochs = [e for e in (self.epoch, other.epoch) if e is not None]
        return Report(
            {name: reduce(LayerReport.__add__, part) for name, part in zip(names, parts)},
            epoch=max(epochs, default=None),
            source=_union("+", self.source, other.source),
            incomplete=_union("; ", self.incomplete, other.incomplete),
        )

    __radd__ = __add__  # `+` is commutative

    def select(self, names: list[str]) -> Report:
        """The same report with only these layers."""
        return replace(self, layers={name: self[name] for name in names})

    def __str__(self) -> str:
        return self.table()

    def table(self, *, tau: float | None = None) -> str:
        """What `str()` shows. With `tau` the dormant neurons (`LayerReport.dormant`) take the activation rates' place.

        Raises:
            ValueError: the report has no sums of the activations, or tau is negative.
        """
        from relu_probe.report.table import report_table

        return report_table(self, tau)

    def assert_alive(
        self, max_dead: float | None = 0.0, max_zero_gradient: float | None = None, layers: Any = None
    ) -> Report:
        """Passes where no layer has a larger fraction of dead neurons, or of neurons without gradient.

        The limits hold for each layer. A neuron at which nothing was seen but NaN is not shown to be alive, and counts
        against both.

        Args:
            max_dead: the largest dead fraction of a layer, from 0 to 1; None for no limit.
            max_zero_gradient: the largest zero-gradient fraction of a layer; None for no limit. Frozen layers, through
                which no gradient can flow, are left out.
            layers: names or globs of the report's own keys; None for all.

        Returns:
            The report itself.

        Raises:
            AssertionError: a layer is above a limit, or saw no sample. The text shows limit, layers, neurons and N.
            ValueError: a limit is no fraction, `layers` matches none, or a limit on gradients meets a report without.

        >>> report = Report({"hidden": LayerReport(samples=8, positions=8, active=[0, 3, 8, 8])})
        >>> report.assert_alive(max_dead=0.25) is report
        True
        >>> report.assert_alive()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        AssertionError: 1 of 1 layers above a limit. hidden: 1 of 4 neurons dead (25.0%, max_dead=0) on 8 samples; ...
        """
        __tracebackhide__ = True
        from relu_probe.report.limits import Limits, assert_alive

        return assert_alive(self, Limits(max_dead, max_zero_gradient), layers)

    def to_frame(self) -> Any:
        """A pandas data frame with one row a neuron; it needs the extra `relu_probe[pandas]`."""
        from relu_probe.report.export import to_frame

        return to_frame(self)

    def _repr_html_(self) -> str:
        from relu_probe.report.markup import report_html

        return report_html(self)

    def __reduce__(self) -> Any:  # a mappingproxy cannot be pickled
        layers, *others = (getattr(self, f.name) for f in fields(self))
        return type(self), (dict(layers), *others)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: numbers, strings, lists, None."""
        return report_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """The inverse of `to_dict`.

        Raises:
            ValueError: another schema, no report at all, or a damaged one.
        """
        return report_from_dict(data, cls, LayerReport)


def _union(separator: str, *texts: str) -> str:
    return separator.join(sorted({part for text in texts for part in text.split(separator) if part}))
