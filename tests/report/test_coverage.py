"""ReLUs that are not counted, or never called: the law of addition, and where they are shown."""

import pickle
import re
from html import unescape

import pytest
from hypothesis import given
from report_strategies import reports
from tensorboard.plugin_util import markdown_to_safe_html

from relu_probe import LayerReport, Report
from relu_probe.report.markup import markdown_table

pytestmark = pytest.mark.once

IN_CELLS = {"lstm": "relu inside its cells", "gru": "relu inside its cells", "block/relu": "in a loop"}
ALIVE = LayerReport(4, 4, [4, 3], [1, 2])
NOTES = ["not counted: lstm, gru (relu inside its cells); block/relu (in a loop)", "never called: spare, unused"]


@pytest.fixture
def partial():
    return Report({"dense": ALIVE}, unseen=IN_CELLS, never_called=("unused", "spare"), last_step=7)


@given(reports, reports)
def test_addition_unites_names_and_reasons(a, b):
    """Nothing is lost: a name that is counted in one report and unseen in the other stays in both."""
    total = a + b
    assert set(total.unseen) == {*a.unseen, *b.unseen}
    for name, why in total.unseen.items():
        expected = {part for report in (a, b) for part in report.unseen.get(name, "").split("; ") if part}
        assert why == "; ".join(sorted(expected))
    assert total.never_called == tuple(sorted({*a.never_called, *b.never_called}))
    assert total.last_step == max((n for n in (a.last_step, b.last_step) if n is not None), default=None)
    assert set(total.layers) == {*a.layers, *b.layers}


def test_a_report_cannot_be_changed_through_unseen():
    given_names = dict(IN_CELLS)
    report = Report(unseen=given_names)
    given_names.clear()
    assert report.unseen == IN_CELLS
    with pytest.raises(TypeError):
        report.unseen["x"] = "y"


def test_copies_and_selections_keep_what_is_not_counted(partial):
    both = partial + Report({"other": ALIVE})
    for report in (pickle.loads(pickle.dumps(partial)), Report.from_dict(partial.to_dict()), both.select(["dense"])):
        assert report == partial


def as_markdown(report):
    return unescape(markdown_to_safe_html(markdown_table(report.cells())))


@pytest.mark.parametrize("shown", [str, as_markdown, Report._repr_html_])
def test_the_foot_of_every_table_names_them(partial, shown):
    text = shown(partial)
    assert all(note in text for note in NOTES)
    assert not any(word in shown(Report({"dense": ALIVE})) for word in ("not counted", "never called"))


def test_require_all_fails_where_a_relu_is_not_counted(partial):
    assert partial.assert_alive() is partial
    with pytest.raises(
        AssertionError, match=re.escape(f"{NOTES[0]}; require_all=True expects every ReLU of the model")
    ):
        partial.assert_alive(require_all=True)


def test_require_all_adds_to_what_exceeds_a_limit(partial):
    report = partial + Report({"sick": LayerReport(4, 4, [0])})
    with pytest.raises(AssertionError, match=r"sick: 1 of 1 dead (.|\n)*not counted: lstm"):
        report.assert_alive(require_all=True)


def test_what_no_call_reaches_fails_nothing():
    report = Report({"dense": ALIVE}, never_called=("spare",))
    assert report.assert_alive(require_all=True) is report
    assert report.dead_fraction == 0


def test_a_report_without_layers_says_what_was_not_counted():
    with pytest.raises(
        AssertionError, match=re.escape("not measured: no ReLU is counted; not counted: lstm (in a loop)")
    ):
        Report(unseen={"lstm": "in a loop"}).assert_alive()


@given(reports)
def test_nan_fractions_are_over_the_measured_neurons(report):
    measured = [layer for layer in report.layers.values() if layer.measured]
    nan = [bool(flag) for layer in measured for flag in layer.nan]
    assert report.nan_fraction == (
        pytest.approx(sum(nan) / len(nan)) if nan else pytest.approx(float("nan"), nan_ok=True)
    )
    for layer in measured:
        assert layer.nan_fraction == layer.nan.mean()
