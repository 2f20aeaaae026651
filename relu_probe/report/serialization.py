"""JSON-ready dicts of dataclass values, and checks of dicts that were read back."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field
from typing import Any

import numpy as np

SCHEMA = 1  # raise it when a field changes its meaning

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "layers": ((dict,), "a mapping of names to layers"),
    "epoch": ((int, type(None)), "a whole number or null"),
    "source": ((str,), "a string"),
    "incomplete": ((str,), "a string"),
    "unseen": ((dict,), "a mapping of names to reasons"),
    "never_called": ((list,), "a list of names"),
    "last_step": ((int, type(None)), "a whole number or null"),
    "frozen": ((bool,), "true or false"),
    "died": ((int, type(None)), "a whole number or null"),
    "revived": ((int, type(None)), "a whole number or null"),
}
_MOST = 2**63 - 1
_RANGES = {"epoch": (-1, 2**31 - 1), "last_step": (0, _MOST), "died": (0, _MOST), "revived": (0, _MOST)}
_SPECIAL_FLOATS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` with NumPy arrays and scalars replaced by lists and numbers.

    JSON has no NaN and no infinity. They become the strings that protobuf's JSON mapping uses, which NumPy can read.
    """
    return {name: _json_value(value) for name, value in values.items()}


def checked_schema(data: Any) -> dict[str, Any]:
    """Returns the dict of a report without its schema number.

    Raises:
        ValueError: `data` is no mapping, or has another schema.
    """
    found = data.get("schema", "no schema") if isinstance(data, Mapping) else type(data).__name__
    if type(found) is not int or found != SCHEMA:  # True and 1.0 equal 1
        raise ValueError(
            f"found {found!r:.60}; expected what Report.to_dict() gives, with schema {SCHEMA}. "
            "Write the report again with this version of relu_probe."
        )
    return {name: value for name, value in data.items() if name != "schema"}


def checked_fields(data: Any, fields: Iterable[Field[Any]], where: str) -> dict[str, Any]:
    """Returns `data` as a dict of arguments for the dataclass that has these fields.

    Args:
        data: what was read.
        fields: the fields of the dataclass.
        where: what the error messages call `data`, such as "the report".

    Raises:
        ValueError: `data` is no mapping, a field is missing, unknown, or of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} is {data!r:.60} ({type(data).__name__}); expected a mapping, as to_dict() gives.")
    required = {field.name: field.default is MISSING for field in fields}
    missing = [name for name, needed in required.items() if needed and name not in data]
    unknown = [name for name in data if name not in required]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(map(repr, unknown))}"
        raise ValueError(
            f"{where} {problem}; expected the fields {', '.join(required)}. Write it again with to_dict()."
        )
    for name, (types, expected) in _TYPES.items():
        if name in data and type(data[name]) not in types:  # not isinstance, for which True is an int
            raise ValueError(f"{name} of {where} is {data[name]!r:.60}; expected {expected}.")
    for name, (least, most) in _RANGES.items():
        if (value := data.get(name)) is not None and not least <= value <= most:
            raise ValueError(f"{name} of {where} is {value!r:.60}; expected a number from {least} to {most}.")
    texts = [*data.get("unseen", {}).values(), *data.get("never_called", [])]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"unseen or never_called of {where} holds {texts!r:.60}; expected strings.")
    return dict(data)


def _json_value(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_json_value(item) if isinstance(item, float) else item for item in value]
    return _SPECIAL_FLOATS.get(str(value), value) if isinstance(value, float) else value
