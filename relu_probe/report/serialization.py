"""How is a report written down, and is what was read a whole one? Plain values for JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from relu_probe.report.layer_report import LayerReport
    from relu_probe.report.report import Report

SCHEMA = 1  # raise it when a field changes its meaning

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "layers": ((dict,), "a mapping of names to layers"),
    "epoch": ((int, type(None)), "a whole number or null"),
    "source": ((str,), "a string"),
    "incomplete": ((str,), "a string"),
    "frozen": ((bool,), "true or false"),
}


def report_to_dict(report: Report) -> dict[str, Any]:
    layers = {name: layer_to_dict(layer) for name, layer in report.layers.items()}
    return {"schema": SCHEMA, **_values(report), "layers": layers}


def layer_to_dict(layer: LayerReport) -> dict[str, Any]:
    return _values(layer)


def report_from_dict(data: Any, report: type[Report], layer: type[LayerReport]) -> Report:
    if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
        found = data.get("schema", "no schema") if isinstance(data, Mapping) else type(data).__name__
        raise ValueError(
            f"found {found!r}; expected what Report.to_dict() gives, with schema {SCHEMA}. "
            "Write the report again with this version of relu_probe."
        )
    values = _checked("the report", {name: value for name, value in data.items() if name != "schema"}, report)
    layers = {name: layer_from_dict(part, layer, f"layer {name!r}") for name, part in values["layers"].items()}
    return report(**{**values, "layers": layers})


def layer_from_dict(data: Any, layer: type[LayerReport], where: str = "the layer") -> LayerReport:
    values = _checked(where, data, layer)
    try:
        return layer(**values)
    except ValueError as error:
        raise ValueError(f"{where} is damaged: {error}") from error


def _checked(where: str, data: Any, kind: type[Any]) -> dict[str, Any]:
    """The values of `data`, whose names must be the fields of `kind`."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} is {data!r:.60} ({type(data).__name__}); expected a mapping, as to_dict() gives.")
    known = {f.name: f.default is MISSING for f in fields(kind)}
    missing = [name for name, needed in known.items() if needed and name not in data]
    if missing or (unknown := [name for name in data if name not in known]):
        problem = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(map(repr, unknown))}"
        raise ValueError(f"{where} {problem}; expected the fields {', '.join(known)}. Write it again with to_dict().")
    for name, (kinds, words) in _KINDS.items():
        if name in data and type(data[name]) not in kinds:  # not isinstance: True is no number
            raise ValueError(f"{name} of {where} is {data[name]!r:.60}; expected {words}.")
    return dict(data)


def _values(record: Any) -> dict[str, Any]:
    return {f.name: _plain(getattr(record, f.name)) for f in fields(record) if f.name != "layers"}


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become the strings that protobuf's JSON mapping uses, and NumPy reads."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) if isinstance(item, float) else item for item in value]
    return _SPECIAL.get(str(value), value) if isinstance(value, float) else value


_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
