"""A report as TensorBoard's own Markdown renders it, and as a notebook shows it."""

import pytest
from html_cells import Cells
from tensorboard.plugin_util import markdown_to_safe_html

from relu_probe import LayerReport, Report
from relu_probe.report.markup import markdown_table, plain_text

pytestmark = pytest.mark.once

NAMES = [
    "dense_1",
    "<img src=x>",
    "a|b",
    "../../x",
    "*bold* _it_ `code` ~~no~~ \\",
    "[link](http://x) ![i](x)",
    "&amp; &#60; \"quoted\" 'q'",
    "# 1. - +",
    "<script>alert(1)</script>",
    "ünï_コード",
]
LAYER = LayerReport(samples=1437, positions=1437, active=[0, 10, 1437], with_gradient=[0, 0, 7], nan=[0, 0, 1])


@pytest.fixture
def report():
    return Report(dict.fromkeys(NAMES, LAYER), epoch=3, source="train", incomplete="<b>disk</b> | full")


def in_tensorboard(report):
    return Cells(markdown_to_safe_html(markdown_table(report.cells())))


def in_a_notebook(report):
    return Cells(report._repr_html_())


@pytest.mark.parametrize("shown", [in_tensorboard, in_a_notebook])
def test_names_show_as_text(report, shown):
    page = shown(report)
    assert [row[0] for row in page.rows[1:-1]] == NAMES
    assert not {"img", "script", "a", "em", "code", "b"}.intersection(page.tags)


def test_names_without_escaping_do_not(report):
    """The planted mistake for the test above."""
    raw = "\n".join(["| layer |", "| :-- |", *(f"| {name} |" for name in NAMES)])
    page = Cells(markdown_to_safe_html(raw))
    assert [row[0] for row in page.rows[1:]] != NAMES
    assert "img" in Cells(markdown_to_safe_html("![i](http://x/y.png)")).tags


@pytest.mark.parametrize("shown", [in_tensorboard, in_a_notebook])
def test_the_numbers_equal_those_of_the_printed_table(report, shown):
    numbers = [" ".join(row[1:]).split() for row in shown(report).rows]
    cells = report.cells()
    assert numbers[1:] == [" ".join(row[1:]).split() for row in [*cells.rows, cells.total]]
    assert numbers[1][:5] == ["3", "1", "50.0%", "2", "100.0%"]
    assert numbers[-1][0] == "30"


def test_a_notebook_shows_one_number_in_a_cell_and_shades_sick_layers():
    well = LayerReport(samples=9, positions=9, active=[1, 9], with_gradient=[1, 9])
    report = Report({"sick": LAYER, "well": well, "unmeasured": LayerReport(0, 0, [0])})
    rows = Cells(report._repr_html_()).rows
    assert rows[1] == ["sick", "3", "1", "50.0%", "2", "100.0%", "0.000", "0.003", "0.007", "1,437", "1,437"]
    assert rows[3] == ["unmeasured", "1", "-", "-", "not measured", "0", "0"]
    shaded = [
        row.partition("</td>")[0].rpartition(">")[2] for row in report._repr_html_().split("<tr") if "background" in row
    ]
    assert shaded == ["sick"]


@pytest.mark.parametrize("shown", [in_tensorboard, in_a_notebook])
def test_title_and_notes_are_shown(report, shown):
    text = shown(report).text
    assert 'ReLU report (train, epoch 3): "dead" is never active on the N samples' in text
    assert "NaN seen at 1 neuron of <img src=x>: neither active nor dead." in text
    assert "Incomplete: <b>disk</b> | full" in text


def test_a_name_of_300_characters_is_shortened_in_tensorboard_only():
    name = "block/" * 49 + "conv_1"
    report = Report({name: LAYER})
    shown = in_tensorboard(report).rows[1][0]
    assert shown == "block/block/block/block/block/block/blo...block/block/conv_1"
    assert len(shown) == 60
    assert in_a_notebook(report).rows[1][0] == name


def test_plain_text_is_one_line():
    assert plain_text("a\n\n# b") == "a &#35; b"
