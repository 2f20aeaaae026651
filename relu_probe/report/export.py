"""How does a report leave the program? A JSON file of `Report.to_dict`, and one row a neuron as CSV or data frame."""

from __future__ import annotations

import csv
import json
import os
from itertools import chain
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.layer_report import LayerReport
from relu_probe.report.report import Report

# The columns, with the pandas type that has room for "not known".
COLUMNS = {
    "epoch": "Int64",
    "layer": "str",
    "neuron": "int64",
    "samples": "int64",
    "positions": "int64",
    "active": "int64",
    "with_gradient": "Int64",
    "nan": "bool",
    "activation_rate": "Float64",
    "gradient_rate": "Float64",
    "dead": "bool",
    "blocked": "boolean",
    "zero_gradient": "boolean",
    "activation_sum": "Float64",
    "last_active": "Int64",
}


def write_json(report: Report, path: str | os.PathLike[str]) -> None:
    """`Report.from_dict(json.load(file))` reads it back."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(report.to_dict(), file, allow_nan=False)
        file.write("\n")


def write_csv(report: Report, path: str | os.PathLike[str]) -> None:
    """A row a neuron under a header; a value that is not known is an empty field."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, layer in report.layers.items():
            writer.writerows(zip(*_columns(report.epoch, name, layer)))


def to_frame(report: Report) -> Any:
    """See `Report.to_frame`."""
    pd = import_pandas()
    parts = [_columns(report.epoch, name, layer) for name, layer in report.layers.items()]
    values = [list(chain.from_iterable(column)) for column in zip(*parts)] or [[]] * len(COLUMNS)
    return pd.DataFrame({name: pd.Series(v, dtype=dtype) for (name, dtype), v in zip(COLUMNS.items(), values)})


def import_pandas() -> Any:
    """The module, for `to_frame()`.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "to_frame() needs pandas, which is not installed; pip install 'relu_probe[pandas]'."
        ) from error
    return pandas


def _columns(epoch: int | None, name: str, layer: LayerReport) -> list[list[Any]]:
    """The columns of one layer, each `(neurons,)` long, None where a value is not known."""
    known = {"epoch": epoch, "layer": name, "neuron": np.arange(layer.neurons)}
    values = [known[column] if column in known else getattr(layer, column) for column in COLUMNS]
    return [_cells(value) if isinstance(value, np.ndarray) else [value] * layer.neurons for value in values]


def _cells(values: NDArray[Any]) -> list[Any]:
    """nan, the rate of what was not measured, becomes None."""
    return [None if isinstance(value, float) and isnan(value) else value for value in values.tolist()]
