"""Assertions on reports: exact comparison with the counts of an independent implementation."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from relu_probe import Report

Counts = dict[str, Any]  # of one layer: active, with_gradient, positions


def assert_counts(layer: Any, expected: Counts) -> None:
    """The integers of a `LayerReport` are equal to the expected ones; None equals None only."""
    np.testing.assert_array_equal(layer.active, expected["active"])
    assert layer.positions == expected["positions"]
    assert (layer.with_gradient is None) == (expected["with_gradient"] is None)
    if layer.with_gradient is not None:
        np.testing.assert_array_equal(layer.with_gradient, expected["with_gradient"])


def assert_report(report: Report, expected: Mapping[str, Counts], samples: int) -> None:
    """The report has exactly the expected layers; each of them saw `samples` samples and has the expected counts."""
    assert list(report) == list(expected)
    assert report.samples == samples
    for key, layer in report.layers.items():
        assert layer.samples == samples
        assert_counts(layer, expected[key])


def counts_of(report: Report, **changes: Any) -> dict[str, Counts]:
    """Returns the counts of a report as `assert_report` expects them, with `changes` in every layer."""
    names = ("active", "with_gradient", "positions")
    return {key: {name: getattr(layer, name) for name in names} | changes for key, layer in report.layers.items()}
