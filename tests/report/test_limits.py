"""`Report.assert_alive`: which reports pass, which fail, and the error texts."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_strategies import reports

from relu_probe import LayerReport, Report

pytestmark = pytest.mark.once

fractions = st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def passes(report, **limits):
    try:
        return report.assert_alive(**limits) is report
    except AssertionError:
        return False


def worst(report, mask_of):
    """The slow, obvious way: the largest share of a layer's neurons that are not shown to be alive."""
    shares = []
    for layer in report.layers.values():
        bad = [mask_of(layer)[i] or layer.nan[i] for i in range(layer.neurons)]
        shares.append(sum(map(bool, bad)) / layer.neurons)
    return max(shares)


def measured(report):
    return bool(report.layers) and all(layer.measured for layer in report.layers.values())


@given(reports, fractions)
def test_it_passes_exactly_if_no_layer_is_above_the_limit(report, limit):
    expected = measured(report) and worst(report, lambda layer: layer.dead) <= limit
    assert passes(report, max_dead=limit) == expected


@given(reports, fractions)
def test_a_limit_on_gradients_passes_exactly_if_no_layer_is_above_it(report, limit):
    with_gradients = all(layer.with_gradient is not None for layer in report.layers.values())
    if measured(report) and with_gradients:
        expected = worst(report, lambda layer: layer.zero_gradient) <= limit
        assert passes(report, max_dead=None, max_zero_gradient=limit) == expected


@given(reports, fractions, fractions)
def test_what_passes_a_limit_passes_every_looser_one(report, a, b):
    if passes(report, max_dead=min(a, b)):
        assert passes(report, max_dead=max(a, b))


def small_dead_layer():
    """Returns a report in which 1 of 8 neurons of `large` and the only neuron of `small` are dead: 2 of 9 together."""
    large = LayerReport(1437, 1437, [0, *[9] * 7], [0, 0, *[9] * 6])
    return Report({"large": large, "small": LayerReport(1437, 1437, [0], [0])}, source="measure")


def test_the_limit_holds_for_each_layer_not_for_the_model():
    report = small_dead_layer()
    assert report.dead_fraction < 0.5  # the planted mistake: pooled, the dead layer would pass
    assert not passes(report, max_dead=0.5)
    assert passes(report, max_dead=0.5, layers="large")


def test_the_text_shows_limit_layers_neurons_and_n():
    with pytest.raises(AssertionError) as error:
        small_dead_layer().assert_alive(max_dead=0.05, max_zero_gradient=0.2)
    first, *others = str(error.value).splitlines()
    assert first == (
        "small: 1 of 1 dead (limit 5 %); large: 1 of 8 dead (limit 5 %); small: 1 of 1 without gradient (limit 20 %); "
        "large: 2 of 8 without gradient (limit 20 %)"
    )
    assert others[:5] == [
        "small: 1 of 1 dead (limit 5 %) on 1,437 samples; neuron 0",
        "large: 1 of 8 dead (limit 5 %) on 1,437 samples; neuron 0",
        "small: 1 of 1 without gradient (limit 20 %) on 1,437 samples; neuron 0",
        "large: 2 of 8 without gradient (limit 20 %) on 1,437 samples; neurons 0, 1",
        "",
    ]
    assert "\n".join(others[5:]) == str(small_dead_layer())


def test_every_layer_above_a_limit_stands_in_the_first_line_the_dead_before_the_blocked():
    """Summaries of pytest and of CI show one line."""
    dead, blocked = LayerReport(9, 9, [0, 0, 9, 9], [0, 0, 9, 9]), LayerReport(9, 9, [9] * 4, [0, 0, 0, 9])
    report = Report({"blocked": blocked, "dead_1": dead, "dead_2": LayerReport(9, 9, [0] * 4, [0] * 4)})
    with pytest.raises(AssertionError) as error:
        report.assert_alive(max_dead=0.25, max_zero_gradient=0.6)
    assert str(error.value).splitlines()[0] == (
        "dead_2: 4 of 4 dead (limit 25 %); dead_1: 2 of 4 dead (limit 25 %); "
        "dead_2: 4 of 4 without gradient (limit 60 %); blocked: 3 of 4 without gradient (limit 60 %)"
    )


def test_a_layer_of_nothing_but_nan_is_called_so():
    report = Report({"a": LayerReport(4, 4, [0] * 64, nan=[True] * 64)})
    with pytest.raises(AssertionError, match=re.escape("a: 64 of 64 NaN (limit 0 %) on 4 samples; neurons 0, 1,")):
        report.assert_alive()


def test_a_single_neuron_is_named_in_the_singular():
    active = [1] * 20
    active[17] = 0
    with pytest.raises(AssertionError, match=r"on 1 sample; neuron 17\n"):
        Report({"a": LayerReport(1, 1, active)}).assert_alive()


def test_the_table_has_only_the_layers_above_a_limit():
    with pytest.raises(AssertionError) as error:
        small_dead_layer().assert_alive(max_dead=0.2)
    assert str(error.value).startswith("small: 1 of 1 dead (limit 20 %) on 1,437 samples; neuron 0\n")
    assert "large" not in str(error.value)


def test_the_first_ten_neurons_are_named():
    report = Report({"a": LayerReport(5, 5, [5, *[0] * 11])})
    with pytest.raises(AssertionError, match=r"neurons 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, \.\.\.\n"):
        report.assert_alive()


def test_an_unmeasured_layer_never_passes():
    fix = (
        "(0 samples), so nothing is known of the neurons; expected at least 1 sample in each layer. Measure on data that "
        "reaches them, or name the other layers in layers=."
    )
    unseen = LayerReport(0, 0, [0, 0])
    for report, text in [
        (Report.empty(), f"not measured: the report has no layers {fix}"),
        (Report({"a": unseen}), f"not measured: a {fix}"),
        (Report({"a": unseen, "b": LayerReport(1, 1, [1])}), f"not measured: a {fix}"),
    ]:
        with pytest.raises(AssertionError, match=re.escape(text)):
            report.assert_alive(max_dead=1.0)
    assert passes(report, layers="b")


def test_nan_counts_against_the_limit():
    """A neuron with a NaN is not dead, but not shown to be alive either."""
    report = Report({"a": LayerReport(4, 4, [0, 0, 4, 3], nan=[False, True, False, True])})
    assert report.dead_fraction == 0.5
    with pytest.raises(AssertionError, match=re.escape("a: 1 of 4 dead, 2 NaN (limit 50 %) on 4")):
        report.assert_alive(max_dead=0.5)
    assert passes(report, max_dead=0.75)


@given(reports, fractions)
def test_what_passes_a_limit_has_no_larger_dead_fraction(report, limit):
    if passes(report, max_dead=limit):
        assert all(layer.dead_fraction <= limit or np.isnan(layer.dead_fraction) for layer in report.layers.values())


def test_missing_gradients_never_pass():
    text = (
        "max_zero_gradient=0.1 needs gradients, and the report has none of a; expected a report of a compiled model on "
        "(x, y). Compile the model and pass labels, name the other layers in layers=, or leave max_zero_gradient out."
    )
    without, with_gradients = LayerReport(2, 2, [1]), LayerReport(2, 2, [1], [1])
    frozen = LayerReport(2, 2, [1], frozen=True)
    for layers in ({"a": without}, {"a": without, "b": with_gradients}, {"a": frozen}):
        with pytest.raises(ValueError, match=re.escape(text)):
            Report(layers).assert_alive(max_zero_gradient=0.1)
    assert passes(Report({"a": frozen, "b": with_gradients}), max_zero_gradient=0.1)


@pytest.mark.parametrize("value", [-0.1, 1.5, 5, float("nan"), "0.5", True, [0.1]])
@pytest.mark.parametrize("name", ["max_dead", "max_zero_gradient"])
def test_limits_outside_0_to_1_are_refused(name, value):
    text = f"{name} is {value!r}; expected a fraction from 0 to 1, for example 0.05 for 5 %."
    with pytest.raises(ValueError, match=re.escape(text)):
        small_dead_layer().assert_alive(**{name: value})


def test_limits_can_be_numpy_numbers():
    assert passes(small_dead_layer(), max_dead=np.float32(1.0), max_zero_gradient=np.int64(1))


def test_no_limit_is_refused():
    text = "max_dead and max_zero_gradient are both None; expected a limit. Pass max_dead=0.0 or more."
    with pytest.raises(ValueError, match=re.escape(text)):
        small_dead_layer().assert_alive(max_dead=None)


@pytest.mark.parametrize(
    ("layers", "kind", "text"),
    [
        ("lrge", ValueError, "layers='lrge' matches no layer; expected names or globs of large, small."),
        ([], ValueError, "layers=[] asks for no layer; expected names or globs of large, small."),
        (3, TypeError, "layers has 3 (int); expected names or globs of large, small."),
        ([3], TypeError, "layers has 3 (int); expected names or globs of large, small."),
    ],
)
def test_layers_that_match_nothing_are_refused(layers, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        small_dead_layer().assert_alive(layers=layers)


@pytest.mark.parametrize("layers", ["la*", ["large"], ("l*e", "large")])
def test_layers_by_name_and_glob(layers):
    assert passes(small_dead_layer(), max_dead=0.2, layers=layers)
    assert not passes(small_dead_layer(), max_dead=0.2)
