"""Files and data frames of a report: JSON, and CSV or pandas with one row per neuron."""

import csv
import json
import os
from collections.abc import Mapping
from itertools import chain
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.layer_report import LayerReport
from relu_probe.utils.replaced_file import replaced_file

# The columns, each with a pandas type that can hold a missing value if the column can have one.
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
# Characters that begin a formula in a spreadsheet, also after a tab or line break, and in their full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_json(values: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes `Report.to_dict()` to a file; `Report.from_dict(json.load(file))` reads it back.

    Raises:
        OSError: the file cannot be written.
    """
    with replaced_file(path) as file:
        json.dump(values, file, allow_nan=False)
        file.write("\n")


def write_csv(layers: Mapping[str, LayerReport], epoch: int | None, path: str | os.PathLike[str]) -> None:
    """Writes a header and one row per neuron; a missing value is an empty field.

    A layer's name that a spreadsheet would take for a formula gets an apostrophe in front.

    Raises:
        OSError: the file cannot be written.
    """
    with replaced_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, layer in layers.items():
            writer.writerows(zip(*_columns(epoch, f"'{name}" if name.startswith(_FORMULA) else name, layer)))


def to_frame(layers: Mapping[str, LayerReport], epoch: int | None) -> Any:
    """Returns a pandas data frame with one row per neuron and the columns `COLUMNS`.

    Raises:
        ImportError: pandas is not installed.
    """
    pd = import_pandas()
    parts = [_columns(epoch, name, layer) for name, layer in layers.items()]
    values = [list(chain.from_iterable(column)) for column in zip(*parts)] or [[]] * len(COLUMNS)
    return pd.DataFrame({name: pd.Series(v, dtype=dtype) for (name, dtype), v in zip(COLUMNS.items(), values)})


def import_pandas() -> Any:
    """Returns the module pandas, which is an optional dependency.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "to_frame() needs pandas, which is not installed; pip install 'relu_probe[pandas]'."
        ) from error
    return pandas


def _columns(epoch: int | None, name: str, layer: LayerReport) -> list[list[Any]]:
    """Returns the columns of one layer, each with a value per neuron, None for a missing value."""
    given = {"epoch": epoch, "layer": name, "neuron": np.arange(layer.neurons)}
    values = [given[column] if column in given else getattr(layer, column) for column in COLUMNS]
    return [_cells(value) if isinstance(value, np.ndarray) else [value] * layer.neurons for value in values]


def _cells(values: NDArray[Any]) -> list[Any]:
    """Returns a list in which nan, such as a rate of a layer that was not measured, is None."""
    return [None if isinstance(value, float) and isnan(value) else value for value in values.tolist()]
