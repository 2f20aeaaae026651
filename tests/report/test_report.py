"""The definitions and the laws of a report, as properties."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_strategies import NEURONS, layers, reports

from relu_probe import LayerReport, Report

pytestmark = pytest.mark.once


@given(reports, reports, reports)
def test_reports_add_up(a, b, c):
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Report.empty() == a == Report.empty() + a


@given(reports)
def test_a_report_survives_json(report):
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_json_of_earlier_versions_reads():
    old = pooled().to_dict()
    for name in ("unseen", "never_called", "last_step"):
        del old[name]
    assert Report.from_dict(old) == pooled()


@pytest.mark.parametrize(
    ("field", "value"), [("unseen", []), ("never_called", "a"), ("last_step", True), ("unseen", {"a": 3})]
)
def test_a_damaged_report_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} (or never_called )?of the report (is|holds) "):
        Report.from_dict({**pooled().to_dict(), field: value})


def assert_share(found, flags):
    assert found == sum(map(bool, flags)) / len(flags) if flags else np.isnan(found)


@given(layers())
def test_the_masks_follow_the_definitions(layer):
    for i in range(NEURONS):
        dead = layer.positions > 0 and layer.active[i] == 0 and not layer.nan[i]
        assert layer.dead[i] == dead
        if layer.with_gradient is not None:
            assert layer.blocked[i] == (layer.active[i] > 0 and layer.with_gradient[i] == 0 and not layer.nan[i])
            assert layer.zero_gradient[i] == (dead or layer.blocked[i])
    if layer.measured:
        judged = [i for i in range(NEURONS) if not layer.nan[i]]
        for name in ("dead", "blocked", "zero_gradient"):  # the same neurons as in the fractions
            assert getattr(layer, name) is None or getattr(layer, name).sum() == layer.shares[name].neurons
        assert_share(layer.dead_fraction, [layer.active[i] == 0 for i in judged])
        if layer.with_gradient is not None:
            assert_share(layer.zero_gradient_fraction, [layer.with_gradient[i] == 0 for i in judged])
        np.testing.assert_array_equal(layer.activation_rate, layer.active / layer.positions)
    else:
        assert np.isnan(layer.dead_fraction)
        assert np.isnan(layer.activation_rate).all()


def pooled():
    """Returns a report: 1 of 1 neurons dead in a small layer, 0 of 3 in a large one, and a layer that saw nothing."""
    small = LayerReport(2, 2, [0], [0])
    large = LayerReport(2, 2, [1, 2, 2], [0, 2, 1])
    return Report({"small": small, "large": large, "unseen": LayerReport(0, 0, [0, 0], [0, 0])})


def test_fractions_pool_the_neurons_of_the_measured_layers():
    assert pooled().dead_fraction == 1 / 4
    assert pooled().zero_gradient_fraction == 2 / 4
    assert pooled().samples == 2
    assert pooled().max_dead_fraction == 1
    assert pooled().blocked_fraction == 1 / 4
    assert np.isnan(Report.empty().max_dead_fraction)


@pytest.mark.parametrize("mistake", ["mean of the layers", "unseen layers count"])
def test_the_pooling_test_rejects(mistake):
    layers = pooled().layers.values()
    if mistake == "mean of the layers":
        wrong = np.mean([layer.dead_fraction for layer in layers if layer.measured])
    else:
        wrong = sum(np.sum(layer.active == 0) for layer in layers) / sum(layer.neurons for layer in layers)
    assert wrong != 1 / 4


def test_the_fractions_of_an_empty_report_are_nan():
    assert np.isnan(Report.empty().dead_fraction)
    assert np.isnan(Report.empty().zero_gradient_fraction)
    assert Report.empty().samples == 0


def test_nan_is_neither_active_nor_dead():
    layer = LayerReport(3, 3, [0, 0], nan=[True, False])
    assert layer.dead.tolist() == [False, True]
    assert "NaN seen at 1 neuron of a: neither active nor dead." in str(Report({"a": layer}))


def test_nan_is_shown_as_nan_and_not_as_zero():
    """Weights that all turn NaN after an epoch in which all neurons are dead: the fraction must not recover."""
    lost = Report(
        {"a": LayerReport(3, 3, [0, 0], [0, 0], nan=[True, True]), "b": LayerReport(3, 3, [0], [0], nan=[True])}
    )
    assert np.isnan([lost.dead_fraction, lost.zero_gradient_fraction, lost["a"].dead_fraction]).all()
    assert lost.nan_fraction == lost["a"].nan_fraction == 1
    assert not lost.dead_fraction < 0.05
    row = next(line.split() for line in str(lost).splitlines() if line.startswith("a "))
    assert row == ["a", "2", "NaN", "NaN", "NaN", "3", "3"]
    total = next(line.split() for line in str(lost).splitlines() if line.startswith("total"))
    assert total == ["total", "3", "NaN", "NaN", "3"]
    partly = Report({"a": LayerReport(4, 4, [0, 0, 4, 2], nan=[True, False, True, False])})
    assert partly.dead_fraction == 0.5  # planted mistakes: 1 of 4 and 2 of 4 neurons
    assert "1 50.0%" in str(partly)
    assert "0.000 0.250 0.500" in str(partly)


def test_none_plus_counts_is_none():
    """Half a count would pass for a whole one."""
    without, with_counts = LayerReport(1, 1, [1]), LayerReport(1, 1, [1], [1])
    assert (without + with_counts).with_gradient is None
    assert (with_counts + with_counts).with_gradient.tolist() == [2]


def test_dormant_is_another_score_than_dead():
    layer = LayerReport(4, 4, [4, 4, 0, 1], activation_sum=[100.0, 1.0, 0.0, 99.0])
    assert layer.dormant(0.0).tolist() == [False, False, True, False]
    assert layer.dormant(0.025).tolist() == [False, True, True, False]  # 1 <= 0.025 * 50
    assert layer.dead.tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match=r"dormant\(tau\) needs the sums of the activations, and this report has none"):
        LayerReport(1, 1, [1]).dormant(0.1)
    with pytest.raises(ValueError, match="tau is -1; expected a number >= 0"):
        layer.dormant(-1)


def test_a_report_cannot_be_changed():
    counts = np.array([1, 2])
    report = Report({"a": LayerReport(2, 2, counts)})
    counts[0] = 99
    assert report["a"].active.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        report["a"].active[0] = 5
    with pytest.raises(TypeError):
        report.layers["b"] = report["a"]
    with pytest.raises(AttributeError):
        report.epoch = 3


def test_a_view_of_a_read_only_array_is_kept_without_a_copy():
    counters = np.array([[1, 2], [0, 1]])
    counters.flags.writeable = False
    layer = LayerReport(2, 2, counters[0], counters[1, :])
    assert np.shares_memory(layer.active, counters)
    assert np.shares_memory(layer.with_gradient, counters)
    with pytest.raises(ValueError, match="read-only"):
        layer.active[0] = 5
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag to True"):
        layer.active.flags.writeable = True
    again = LayerReport(2, 2, layer.active)  # as in a report of the same counts
    assert again.active is layer.active


def views_of_memory_that_may_change():
    """Read-only arrays, and a function that changes each."""
    below, between, buffer = np.array([1, 2, 3]), np.array([1, 2, 3]), bytearray(np.array([1, 2], np.int64))
    view = below[:2]
    view.flags.writeable = False
    yield "of a writeable array", view, lambda: below.__setitem__(0, 0)
    middle = between[:]
    middle.flags.writeable = False
    yield "of a read-only view of a writeable array", middle[:2], lambda: between.__setitem__(0, 0)
    array = np.frombuffer(buffer, np.int64)
    array.flags.writeable = False
    yield "of a buffer", array, lambda: buffer.__setitem__(0, 0)


@pytest.mark.parametrize("case", list(views_of_memory_that_may_change()), ids=lambda case: case[0])
def test_a_view_of_memory_that_may_change_is_copied(case):
    _, view, change = case
    assert not view.flags.writeable
    layer = LayerReport(2, 2, view)
    change()
    assert view.tolist() == [0, 2]  # without a copy, the report would have changed
    assert layer.active.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            (2, 2, [3]),
            "active > positions at neuron 0; expected 0 <= with_gradient <= active <= positions (positions is 2)",
        ),
        ((2, 2, [0, 1], [0, 2]), "with_gradient > active at neuron 1; expected 0 <= with_gradient <= active"),
        ((2, 2, [-1]), "0 > active at neuron 0; expected 0 <= with_gradient <= active <= positions"),
        ((2, 2, [1, 1], [1]), "with_gradient has shape (1,); expected one value a neuron, as `active` has: (2,)."),
        ((2, 2, [[1]]), "active has shape (1, 1); expected one value a neuron"),
    ],
)
def test_contradicting_counts_are_refused(arguments, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        LayerReport(*arguments)


def test_reports_of_different_models_do_not_add_up():
    with pytest.raises(
        ValueError, match="cannot add a layer of 1 neurons and one of 2; expected reports of the same model"
    ):
        LayerReport(1, 1, [1]) + LayerReport(1, 1, [1, 1])


def test_a_report_is_a_mapping():
    report = pooled()
    assert (len(report), list(report), dict(report.items())) == (3, ["small", "large", "unseen"], dict(report.layers))
    assert "small" in report
    assert "dense" not in report
    assert report.get("dense") is None
    assert Report.empty()  # true, though it is empty


@given(reports, reports)
def test_equal_reports_have_equal_hashes(a, b):
    again = Report.from_dict(json.loads(json.dumps(a.to_dict())))
    assert (again == a, hash(again)) == (True, hash(a))
    assert a != b or hash(a) == hash(b)


def test_reports_of_other_counts_differ():
    one, other = (Report({"a": LayerReport(4, 4, [n])}) for n in (1, 2))
    assert one != other
    assert len({one, other, one + Report.empty()}) == 2


@given(st.lists(reports, max_size=3))
def test_a_sum_of_reports_needs_no_start(several):
    assert sum(several) == (sum(several, Report.empty()) if several else 0)


def test_layers_are_selected_by_name_and_glob():
    report = pooled()
    assert list(report.select("*l*")) == ["small", "large"]
    assert list(report.select(["large", "small"])) == ["small", "large"]
    with pytest.raises(ValueError, match="layers='dense' matches no layer; expected names or globs of small, large"):
        report.select("dense")


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (pooled(), "<Report empty: 1 of 4 dead, worst small 100 %>"),
        (Report(pooled().layers, epoch=11, source="train"), "<Report train epoch 11: 1 of 4 dead, worst small 100 %>"),
        (Report({}, source="watch", unseen={"lstm": "?"}), "<Report watch: nothing measured, 1 ReLU not counted>"),
        (Report({"a": LayerReport(1, 1, [0], nan=[1])}), "<Report empty: 0 of 1 dead, 1 NaN>"),
    ],
)
def test_a_report_is_one_line_in_a_debugger(report, text):
    assert repr(report) == text


def test_a_layer_is_one_line_in_a_debugger():
    layer = LayerReport(9, 9, [0, 2, 3], [0, 0, 0], nan=[0, 0, 1])
    assert repr(layer) == "<LayerReport: 1 of 3 dead, 1 blocked, 1 NaN, on 9 samples>"


def test_the_error_names_an_unknown_layer():
    with pytest.raises(KeyError, match="no layer 'x' in this report; its layers are small, large, unseen"):
        pooled()["x"]


def test_the_table_is_complete():
    wide = LayerReport(60_000, 60_000 * 784, np.arange(1000) * 1000, np.arange(1000) * 900)
    report = Report({"dense": LayerReport(1437, 1437, [0, 3]), "[red]conv_with_quite_a_long_name": wide}, 4, "train")
    table = str(report + pooled())
    for text in ("train, epoch 4", "60,000", "47,040,000", "1 50.0%", "not measured", "total", "[red]"):
        assert text in table, text


def test_the_row_of_a_frozen_layer_says_so():
    frozen = LayerReport(2, 2, [1, 2], frozen=True)
    assert "frozen" in str(Report({"a": frozen})).replace("'a'", "")
    assert "frozen" not in str(Report({"a": LayerReport(2, 2, [1, 2])}))
