"""The report of a model: the counts of its layers, their pooled fractions, and the law of addition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from math import isnan, nan
from types import MappingProxyType
from typing import Any

from relu_probe.report.coverage import coverage_notes, union, united_reasons
from relu_probe.report.export import to_frame
from relu_probe.report.layer_report import LayerReport, any_gradients, most_samples
from relu_probe.report.limits import ExceededLimit, Limits, checked_limits, explain, not_all_counted
from relu_probe.report.markup import html_table
from relu_probe.report.serialization import SCHEMA, checked_fields, checked_schema, json_values
from relu_probe.report.share import pooled
from relu_probe.report.summary import summary
from relu_probe.report.table import ReportCells, report_cells, text_report
from relu_probe.report.text_table import terminal_width
from relu_probe.utils.foreign_text import shown, shown_names
from relu_probe.utils.layer_names import select


@dataclass(frozen=True, eq=False, repr=False)
class Report(Mapping[str, LayerReport]):
    """The immutable result of one measurement: a mapping of layer names to `LayerReport`. `str()` is the table.

    Args:
        layers: name -> `LayerReport`, in the model's order.
        epoch: counted from 0, as Keras does; None outside a fit.
        source: "train", "data", "measure" or "watch".
        incomplete: what the probe could not do, such as "logging stopped: disk full"; "" if nothing.
        unseen: the ReLUs of the model that cannot be counted: name -> reason.
        never_called: the names of the ReLU layers that no call of the model reached; kept sorted.
        last_step: the newest training step that the counts hold, numbered from 0 over the fit, or call in a `watch`; None elsewhere.

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
    unseen: Mapping[str, str] = field(default_factory=dict)
    never_called: tuple[str, ...] = ()
    last_step: int | None = None

    def __post_init__(self) -> None:
        for name in ("layers", "unseen"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        object.__setattr__(self, "never_called", tuple(sorted(set(self.never_called))))

    @classmethod
    def empty(cls) -> Report:
        """Returns a report without layers, the zero of `+`."""
        return cls()

    def __getitem__(self, name: str) -> LayerReport:
        try:
            return self.layers[name]
        except KeyError:
            raise KeyError(f"no layer {name!r} in this report; its layers are {shown_names(self) or 'none'}.") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __bool__(self) -> bool:
        return True  # a report without layers is a report too: `report or default` must not replace it

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Report):
            return NotImplemented
        return all(getattr(self, f.name) == getattr(other, f.name) for f in fields(self))

    def __hash__(self) -> int:
        return hash(frozenset(self.layers.items()))

    @property
    def samples(self) -> int:
        """The number of samples of the layer that saw the most; 0 without layers."""
        return most_samples(self.layers.values())

    @property
    def dead_fraction(self) -> float:
        """Dead neurons / neurons that can be judged, all layers pooled, not the mean over the layers; nan if there are none."""
        return pooled(self.layers.values(), "dead").fraction

    @property
    def max_dead_fraction(self) -> float:
        """The largest dead fraction of a layer; nan if no layer has one."""
        shares = [layer.dead_fraction for layer in self.layers.values()]
        return max((share for share in shares if not isnan(share)), default=nan)

    @property
    def zero_gradient_fraction(self) -> float:
        """Zero-gradient neurons / neurons that can be judged, of all layers with gradients pooled; nan if there are none."""
        return pooled(self.layers.values(), "zero_gradient").fraction

    @property
    def blocked_fraction(self) -> float:
        """Blocked neurons / neurons that can be judged, of all layers with gradients pooled; nan if there are none."""
        return pooled(self.layers.values(), "blocked").fraction

    @property
    def nan_fraction(self) -> float:
        """Neurons at which a NaN was seen / neurons, all measured layers pooled; nan if no layer was measured."""
        return pooled(self.layers.values(), "nan").fraction

    @property
    def has_gradients(self) -> bool:
        """Whether a backward pass reached any layer."""
        return any_gradients(self.layers.values())

    def __add__(self, other: Report) -> Report:
        if not isinstance(other, Report):
            return NotImplemented
        names = list(dict.fromkeys([*self.layers, *other.layers]))
        parts = [[r.layers[n] for r in (self, other) if n in r.layers] for n in names]
        return Report(
            {name: reduce(LayerReport.__add__, part) for name, part in zip(names, parts)},
            epoch=_newest(self.epoch, other.epoch),
            source=union("+", self.source, other.source),
            incomplete=union("; ", self.incomplete, other.incomplete),
            unseen=united_reasons(self.unseen, other.unseen),
            never_called=self.never_called + other.never_called,
            last_step=_newest(self.last_step, other.last_step),
        )

    def __radd__(self, other: object) -> Report:
        return self if other == 0 else NotImplemented  # `sum(reports)` begins with 0

    def select(self, layers: Any) -> Report:
        """Returns the same report with only these layers, in the report's order. What is not counted stays named.

        Args:
            layers: names or globs.

        Raises:
            ValueError: a name or glob matches no layer of the report.

        >>> layer = LayerReport(samples=4, positions=4, active=[0, 4])
        >>> list(Report({"conv_1": layer, "conv_2": layer, "dense": layer}).select("conv*"))
        ['conv_1', 'conv_2']
        """
        names = [*self.layers, *self.unseen, *self.never_called]
        chosen = select(names, layers, expected=self._expected_names)
        return replace(self, layers={name: layer for name, layer in self.layers.items() if name in chosen})

    @property
    def _expected_names(self) -> str:
        return f"expected names or globs of {shown_names(self) or 'a report that has layers'}."

    def __repr__(self) -> str:
        when = "" if self.epoch is None else f" epoch {self.epoch}"
        return f"<Report {shown(self.source) or 'empty'}{when}: {summary(self.layers, self.unseen)}>"

    def __str__(self) -> str:
        return self.table()

    def table(self, *, tau: float | None = None, width: int | None = None) -> str:
        """Returns what `str()` shows.

        In a narrow terminal, the number of positions is left out, then long names are shortened, then the activation
        rates are left out. Numbers are never cut.

        Args:
            width: the number of characters in a line; None for the terminal's, or, if standard output is a pipe, a file
                or a notebook, as many as are needed.
            tau: if given, the number of dormant neurons (`LayerReport.dormant`) takes the place of the activation rates.

        Raises:
            ValueError: the report has no sums of the activations, or tau is negative.
        """
        return text_report(self.cells(tau), terminal_width() if width is None else width)

    def cells(self, tau: float | None = None) -> ReportCells:
        """Returns the texts of the table, for other formats; `tau` and errors as in `table`."""
        notes = [f"Incomplete: {shown(self.incomplete, 2000)}"] if self.incomplete else []
        notes += coverage_notes(self.unseen, self.never_called)
        return report_cells(self.layers, epoch=self.epoch, source=self.source, notes=notes, tau=tau)

    def assert_alive(
        self,
        max_dead: float | None = 0.0,
        max_zero_gradient: float | None = None,
        layers: Any = None,
        *,
        require_all: bool = False,
    ) -> Report:
        """Asserts that no layer has a larger fraction of dead neurons, or of neurons without gradient.

        The limits hold for each layer. A neuron that gave nothing but NaN is not shown to be alive, and counts against both.

        Args:
            max_dead: the largest dead fraction of a layer, from 0 to 1; None for no limit.
            max_zero_gradient: the largest zero-gradient fraction of a layer; None for no limit. Frozen layers, through
                which no gradient can flow, are left out.
            layers: names or globs of layers of this report; None for all.
            require_all: fail too if a ReLU of the model is not counted (`unseen`).

        Returns:
            The report itself.

        Raises:
            AssertionError: a layer exceeds a limit or saw no sample, or `require_all` finds one not counted. The text shows limit, layers, neurons and N.
            ValueError: a limit is no fraction, `layers` matches none, or a limit on gradients meets a report without.

        >>> report = Report({"hidden": LayerReport(samples=8, positions=8, active=[0, 3, 8, 8])})
        >>> report.assert_alive(max_dead=0.25) is report
        True
        >>> report.assert_alive()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        AssertionError: hidden: 1 of 4 dead (limit 0 %) on 8 samples; neuron 0
        ...
        """
        __tracebackhide__ = True  # pytest shows the caller's line
        limits = Limits(max_dead, max_zero_gradient)
        names = list(self.layers) if layers is None else select(self.layers, layers, expected=self._expected_names)
        chosen = {name: self.layers[name] for name in names}
        exceeded = checked_limits(chosen, limits, self.unseen)
        missing = not_all_counted(self.unseen) if require_all and self.unseen else ""
        if exceeded or missing:
            raise AssertionError(self.explain(exceeded, missing))
        return self

    def explain(self, exceeded: list[ExceededLimit], missing: str = "") -> str:
        """Returns a line for each exceeded limit, what else is `missing`, and the table's rows of the layers."""
        names = {one.layer for one in exceeded}
        rows = replace(self, layers={name: layer for name, layer in self.layers.items() if name in names})
        return "\n".join(filter(None, [explain(exceeded) if exceeded else "", missing])) + f"\n\n{rows}"

    def to_frame(self) -> Any:
        """Returns a pandas data frame with one row per neuron.

        Raises:
            ImportError: pandas, which the extra `relu_probe[pandas]` installs, is missing.
        """
        return to_frame(self.layers, self.epoch)

    def _repr_html_(self) -> str:
        return html_table(self.cells())

    def __reduce__(self) -> Any:  # a mappingproxy cannot be pickled
        values = (getattr(self, f.name) for f in fields(self))
        return type(self), tuple(dict(value) if isinstance(value, MappingProxyType) else value for value in values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as numbers, strings, lists, dicts and None, ready for JSON."""
        values = json_values({name: value for name, value in vars(self).items() if name != "layers"})
        values |= {"unseen": dict(self.unseen), "never_called": list(self.never_called)}
        return {"schema": SCHEMA, **values, "layers": {name: layer.to_dict() for name, layer in self.layers.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """Returns the report that `to_dict` wrote.

        Raises:
            ValueError: `data` has another schema, is no report, or is damaged.
        """
        read = {"unseen": {}, **checked_schema(data)}  # earlier versions wrote no `unseen`
        values = checked_fields(read, fields(cls), "the report")
        layers = {name: LayerReport.from_dict(part, f"layer {name!r}") for name, part in values["layers"].items()}
        return cls(**{**values, "layers": layers})


def _newest(*numbers: int | None) -> int | None:
    return max((number for number in numbers if number is not None), default=None)
