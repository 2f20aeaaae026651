"""Reports as JSON, CSV and data frames; a damaged JSON file is refused."""

import csv
import json
import math
import os
import re

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from models import sequential
from report_strategies import reports

from relu_probe import LayerReport, Report, measure
from relu_probe.report.export import COLUMNS, write_csv, write_json


def report():
    odd = LayerReport(4, 8, [0, 3, 8], [0, 0, 2], [True, False, False], [math.nan, math.inf, 2.5], [-1, 3, 9])
    return Report({"odd": odd, "plain": LayerReport(4, 4, [1]), "unseen": LayerReport(0, 0, [0])}, 2, "train", "why")


def test_a_report_written_as_strict_json_reads_back_equal(tmp_path):
    write_json(report().to_dict(), tmp_path / "r.json")
    text = (tmp_path / "r.json").read_text()
    loaded = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert loaded["schema"] == 1
    assert Report.from_dict(loaded) == report()
    sums = Report.from_dict(loaded)["odd"].activation_sum
    assert math.isnan(sums[0])
    assert sums[1:].tolist() == [math.inf, 2.5]


@given(reports, reports)
def test_loaded_reports_add_up(a, b):
    loaded = [Report.from_dict(json.loads(json.dumps(part.to_dict(), allow_nan=False))) for part in (a, b)]
    assert sum(loaded, Report.empty()) == a + b


def test_reports_of_shards_of_data_add_up_to_the_report_of_all_data(digits_like):
    x, y = digits_like
    layers = [tf.keras.layers.Dense(6, "relu"), tf.keras.layers.Dense(3, "softmax")]
    model = sequential(8, *layers, loss="categorical_crossentropy")
    shards = [json.dumps(measure(model, (x[part], y[part])).to_dict()) for part in (slice(0, 40), slice(40, None))]
    first, second = (Report.from_dict(json.loads(shard)) for shard in shards)
    assert first + second == measure(model, (x, y))
    assert first != measure(model, (x, y))


GOOD = report().to_dict()
ODD = GOOD["layers"]["odd"]


def damaged(**changes):
    return {**GOOD, "layers": {"odd": {**ODD, **changes}}}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, "found 'NoneType'; expected what Report.to_dict() gives, with schema 1. Write the report again"),
        ({}, "found 'no schema'; expected what Report.to_dict() gives, with schema 1."),
        ({**GOOD, "schema": 2}, "found 2; expected what Report.to_dict() gives, with schema 1."),
        ({**GOOD, "schema": True}, "found True; expected what Report.to_dict() gives, with schema 1."),
        ({**GOOD, "schema": 1.0}, "found 1.0; expected what Report.to_dict() gives, with schema 1."),
        (
            {"schema": 1},
            "the report lacks layers; expected the fields layers, epoch, source, incomplete, unseen, never_called, last_step.",
        ),
        (
            {**GOOD, "rank": 0},
            "the report has unknown 'rank'; expected the fields layers, epoch, source, incomplete, unseen, never_called, last_step.",
        ),
        ({**GOOD, "layers": []}, "layers of the report is []; expected a mapping of names to layers."),
        ({**GOOD, "epoch": 1.5}, "epoch of the report is 1.5; expected a whole number or null."),
        ({**GOOD, "epoch": True}, "epoch of the report is True; expected a whole number or null."),
        (
            {**GOOD, "epoch": 2**31},
            "epoch of the report is 2147483648; expected a number from -1 to 2147483647.",
        ),
        ({**GOOD, "last_step": -1}, "last_step of the report is -1; expected a number from 0 to 9223372036854775807."),
        ({**GOOD, "source": 3}, "source of the report is 3; expected a string."),
        ({**GOOD, "layers": {"a": 3}}, "layer 'a' is 3 (int); expected a mapping, as to_dict() gives."),
        ({**GOOD, "layers": {"a": {}}}, "layer 'a' lacks samples, positions, active; expected the fields samples,"),
        (damaged(frozen=1), "frozen of layer 'odd' is 1; expected true or false."),
        (damaged(samples=-1), "layer 'odd' is damaged: samples is -1; expected a whole number >= 0."),
        (damaged(positions=8.5), "layer 'odd' is damaged: positions is 8.5; expected a whole number >= 0."),
        (damaged(samples=math.inf), "layer 'odd' is damaged: samples is inf; expected a whole number >= 0."),
        (damaged(samples=True), "layer 'odd' is damaged: samples is True; expected a whole number >= 0."),
        (damaged(positions=1e308), "layer 'odd' is damaged: positions is 1e+308; expected a whole number >= 0."),
        (damaged(samples="4"), "layer 'odd' is damaged: samples is '4'; expected a whole number >= 0."),
        (damaged(active=[0, 1.5, 2]), "active is [0, 1.5, 2]; expected one value of type int64 a neuron."),
        (damaged(active=["0", "1", "2"]), "expected one value of type int64 a neuron."),
        (damaged(active=None), "active is None; expected one value of type int64 a neuron."),
        (damaged(active=[0, 10**30, 2]), "expected one value of type int64 a neuron."),
        (damaged(active=[[0], [1, 2]]), "active is [[0], [1, 2]]; expected one value of type int64 a neuron."),
        (
            damaged(active=[0, 3, 9]),
            "active > positions at neuron 2; expected 0 <= with_gradient <= active <= positions",
        ),
        (damaged(nan=[2, 0, 0]), "nan is [2, 0, 0]; expected one value of type bool a neuron."),
        (damaged(activation_sum=["x", 1, 2]), "activation_sum is ['x', 1, 2]; expected one value of type float64"),
        (damaged(died=[]), "died of layer 'odd' is []; expected a whole number or null."),
        (damaged(revived={"a": 1}), "revived of layer 'odd' is {'a': 1}; expected a whole number or null."),
        (damaged(died="x"), "died of layer 'odd' is 'x'; expected a whole number or null."),
        (damaged(revived=True), "revived of layer 'odd' is True; expected a whole number or null."),
        (damaged(died=1e308), "died of layer 'odd' is 1e+308; expected a whole number or null."),
        (damaged(revived=-1), "revived of layer 'odd' is -1; expected a number from 0 to 9223372036854775807."),
        (damaged(last_active=[1]), "last_active has shape (1,); expected one value a neuron"),
    ],
)
def test_damaged_data_is_refused(data, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        Report.from_dict(data)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, *ODD]), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(GOOD)), st.sampled_from(sorted(ODD)), anything)
def test_arbitrary_data_gives_a_report_or_a_value_error(top, field, value):
    for data in (value, {**GOOD, top: value}, {**GOOD, "layers": {"a": value}}, damaged(**{field: value})):
        if (message := error_message(data)) is not None:
            assert "expected" in message


def error_message(data):
    try:
        assert isinstance(Report.from_dict(data), Report)
    except ValueError as error:
        return str(error)


def test_a_frame_has_one_row_per_neuron():
    frame = report().to_frame()
    assert frame.shape == (5, len(COLUMNS))
    assert frame["layer"].tolist() == ["odd"] * 3 + ["plain", "unseen"]
    assert frame["neuron"].tolist() == [0, 1, 2, 0, 0]
    assert frame["epoch"].tolist() == [2] * 5
    odd = frame[frame["layer"] == "odd"]
    for name in ("active", "with_gradient", "activation_rate", "gradient_rate", "dead", "blocked", "zero_gradient"):
        np.testing.assert_array_equal(odd[name].to_numpy(), getattr(report()["odd"], name), name)
    assert frame["with_gradient"].isna().tolist() == [False] * 3 + [True] * 2
    assert frame["activation_rate"].isna().tolist() == [False] * 4 + [True]
    assert odd["active"].tolist() != frame["active"].tolist()[-3:]  # so that the comparison can fail


def test_frames_of_epochs_can_be_joined():
    frames = pd.concat([report().to_frame(), Report({"odd": report()["odd"]}, 3).to_frame()])
    assert frames.groupby("epoch")["dead"].sum().to_dict() == {2: 0, 3: 0}
    assert Report.empty().to_frame().columns.tolist() == list(COLUMNS)


def test_the_csv_file_equals_the_frame(tmp_path):
    write_csv(report().layers, report().epoch, tmp_path / "r.csv")
    types = {name: "float" if dtype == "Float64" else dtype for name, dtype in COLUMNS.items()}
    read = pd.read_csv(tmp_path / "r.csv", dtype=types)
    pd.testing.assert_frame_equal(read, report().to_frame().astype(types))


def test_without_pandas_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    text = "to_frame() needs pandas, which is not installed; pip install 'relu_probe[pandas]'."
    with pytest.raises(ImportError, match=re.escape(text)):
        report().to_frame()


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "plain", "a=b", "\ud800"])
def test_a_name_is_no_formula_in_a_spreadsheet(tmp_path, name):
    write_csv({name: LayerReport(2, 2, active=[1])}, 0, tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["layer"] == {"plain": name, "a=b": name, "\ud800": r"\ud800"}.get(name, f"'{name}")


@pytest.mark.parametrize("write", [write_json, write_csv])
def test_a_file_is_replaced_as_a_whole(tmp_path, write):
    """An error while it is written leaves the earlier file, and nothing else."""
    path, other = tmp_path / "report", tmp_path / "other"
    path.write_text("earlier")
    os.link(path, other)
    arguments = ({"a": object()},) if write is write_json else ({"a": None}, 0)
    with pytest.raises((TypeError, AttributeError)):
        write(*arguments, path)
    assert path.read_text() == "earlier"
    assert sorted(os.listdir(tmp_path)) == ["other", "report"]
    path.chmod(0o640)
    write(*(({},) if write is write_json else ({}, 0)), path)
    assert path.read_text() != "earlier" == other.read_text()
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link.json").symlink_to("real.json")
    write_json({}, tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "{}\n"
