"""Shares that rounding would turn into 0 % or 100 %: one dead neuron of 10,000, and all but one."""

import numpy as np
import pytest
from html_cells import Cells
from shown_numbers import agrees, disagreements
from tensorboard.plugin_util import markdown_to_safe_html

from relu_probe import LayerReport, Report, history
from relu_probe.report.comparison import change_table, compare
from relu_probe.report.history_table import change_cells
from relu_probe.report.markup import markdown_table

pytestmark = pytest.mark.once

NEURONS = 10_000
SHOWN = {0: "0.0%", 1: "<0.1%", 6: "0.1%", 9_994: "99.9%", 9_999: ">99.9%", 10_000: "100.0%"}  # dead: their share


def layer(dead):
    active = np.r_[np.zeros(dead, int), np.full(NEURONS - dead, 8)]
    return LayerReport(8, 8, active, active)


REPORT = Report({f"dead_{dead}": layer(dead) for dead in SHOWN}, epoch=0)
EXPECTED = [[f"{dead:,}", share] for dead, share in SHOWN.items()]


def test_in_the_printed_table():
    assert disagreements(REPORT, str(REPORT)) == []
    rows = str(REPORT).splitlines()[4 : 4 + len(SHOWN)]
    assert [row.split()[2:4] for row in rows] == [row.split()[4:6] for row in rows] == EXPECTED
    assert len({row.index("%") for row in rows}) == 1, "the shares stand in one column"


@pytest.mark.parametrize(("right", "wrong"), [("<0.1%", "0.0%"), (">99.9%", "100.0%"), (">99.9%", "<0.1%")])
def test_the_check_rejects_a_false_share(right, wrong):
    """The planted mistakes: the shares as they were shown, and the one for the other."""
    assert disagreements(REPORT, str(REPORT).replace(right, wrong)) != []


def test_in_markdown_and_html():
    markdown = Cells(markdown_to_safe_html(markdown_table(REPORT.cells()))).rows[1:-1]
    assert [row[2].split() for row in markdown] == EXPECTED
    assert [row[2:4] for row in Cells(REPORT._repr_html_()).rows[1:-1]] == EXPECTED, "each number in a cell of its own"


def test_in_a_history():
    found = history([REPORT])
    assert [line.split()[1:3] for line in str(found).splitlines()[4:]] == EXPECTED
    assert [row[1:3] for row in Cells(found._repr_html_()).rows[1:]] == EXPECTED
    assert [row[2].split() for row in change_cells(found).rows] == EXPECTED


def test_in_a_comparison():
    (change,) = changes = compare(Report({"a": layer(0)}), Report({"a": layer(1)}))
    row = change_table(changes, "old", "new").splitlines()[-1].split()
    assert row == ["a", "0", "0.0%", "1", "<0.1%", "+0.01", "points", "8", "8"]
    assert change.worsened(0) == "a: from 0 of 10,000 dead (0.0 %, N = 8) to 1 of 10,000 dead (<0.1 %, N = 8)"
    (change,) = compare(Report({"a": layer(10_000)}), Report({"a": layer(9_999)}))
    assert change_table([change], "old", "new").splitlines()[-1].split()[4:6] == [">99.9%", "-0.01"]


@pytest.mark.parametrize("dead", SHOWN)
def test_in_sentences(dead):
    words = SHOWN[dead].removesuffix("%").removesuffix(".0") + " %"
    assert f"worst a {words}" in repr(Report({"a": layer(dead)})) or not dead


def test_rounded_shares_agree_with_no_others():
    assert all(agrees(share, dead / NEURONS) for dead, share in SHOWN.items())
    assert sum(agrees(share, dead / NEURONS) for dead in SHOWN for share in SHOWN.values()) == len(SHOWN)
