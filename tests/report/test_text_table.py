"""Printed tables at every width: names are shortened, numbers never."""

import os
import pty
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_strategies import reports
from rich.cells import cell_len
from shown_numbers import disagreements

from relu_probe import LayerReport, Report, history
from relu_probe.report.text_table import middle_cut, text_table, wrapped

pytestmark = pytest.mark.once

WIDTHS = [60, 80, 120, None]
KINDS = ["expand_relu", "depthwise_relu", "project_relu", "out"]


def big_report(epoch=None):
    """40 layers with Keras's own names, a million positions, and 1,000 and more dead neurons in some."""
    rng, layers = np.random.default_rng(epoch), {}
    for number in range(40):
        active = rng.integers(0, 1_605_632, 2048)
        active[: 40 * number] = 0
        name = f"block_{number // 4}_{KINDS[number % 4]}" if number % 4 < 3 else f"conv4_block{number}_{KINDS[3]}"
        layers[name] = LayerReport(8192, 1_605_632, active, active // 2)
    return Report(layers, epoch=epoch, source="train")


@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_of_a_large_model_is_cut(width):
    report = big_report()
    text = report.table(width=width)
    assert disagreements(report, text) == []
    assert width is None or max(map(len, text.splitlines())) <= width
    if width == 80:
        assert "block_0_ex…relu" in text
        assert "positions" not in text
    if width is None:
        assert all(name in text for name in report.layers)


@given(reports, st.sampled_from(WIDTHS))
def test_no_number_of_any_report_is_cut(report, width):
    assert disagreements(report, report.table(width=width)) == []


def test_the_check_rejects_numbers_that_are_cut_or_wrong():
    """The planted mistakes: a number that lost its last digits, one rounded wrongly, a share of all neurons."""
    report = Report({"a": LayerReport(16_384, 16_384, [0, 0, 5, 16_384], nan=[True, False, False, False])})
    text = str(report)
    assert disagreements(report, text) == []
    for right, wrong in [("16,384", "16,3"), ("33.3%", "33.4%"), ("33.3%", "25.0%")]:
        assert right in text
        assert "a" in disagreements(report, text.replace(right, wrong, 1))


@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_of_a_history_is_cut(width, monkeypatch):
    layers = big_report(0).layers
    dead = {name: LayerReport(8192, 1_605_632, np.zeros(2048, int)) for name in layers}
    found = history([Report(layers, 0), Report(dead, 1)])
    died = [np.count_nonzero(layer.active) for layer in layers.values()]
    monkeypatch.setattr("relu_probe.report.history.terminal_width", lambda: width)
    summary, full = ([line.split() for line in text.splitlines()] for text in (str(found), found.table()))
    assert [row[1:3] for row in summary[-40:]] == [["2,048", "100.0%"]] * 40
    assert width in (60, 80) or [row[5] for row in summary[-40:]] == [f"{count:,}" for count in died]
    assert [row[4] for row in full if row[1:2] == ["1"]] == [f"{count:,}" for count in died]
    assert width is None or max(map(len, f"{found}\n{found.table()}".splitlines())) <= width


PRINT = """
from relu_probe import LayerReport, Report
name = "a_layer_with_a_name_of_" + "x" * 50
print(Report({name: LayerReport(8192, 1234567, [0, 1234567])}))
"""


def printed_in_a_terminal(columns):
    master, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns)}
    process = subprocess.Popen([sys.executable, "-c", PRINT], stdout=terminal, env=environment)
    os.close(terminal)
    output = b""
    try:
        while part := os.read(master, 4096):
            output += part
    except OSError:  # the end, on Linux
        pass
    assert process.wait() == 0
    return output.decode()


def test_the_terminals_width_is_used_and_a_pipe_gets_all_that_is_needed():
    narrow, wide = map(printed_in_a_terminal, (70, 160))
    piped = subprocess.run([sys.executable, "-c", PRINT], capture_output=True, check=True, text=True).stdout
    assert max(map(len, narrow.splitlines())) <= 70
    assert "positions" not in narrow
    assert wide.splitlines() == piped.splitlines()
    assert "x" * 50 in piped
    assert "1,234,567" in piped


def test_text_that_the_terminal_cannot_show_is_not_used(monkeypatch):
    with open(os.devnull, "w", encoding="ascii") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert middle_cut("block_16_expand_relu", 14) == "block_16...elu"


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])), st.integers(8, 40))
def test_a_shortened_name_fits(name, width):
    assert cell_len(middle_cut(name, width)) <= width


def test_wide_characters_keep_the_columns_in_line():
    lines = text_table(["layer", "N"], [["コンボ", "1"], ["conv", "1"]]).splitlines()
    assert len({cell_len(line) for line in lines if not line.startswith("-")}) == 1


def test_a_long_word_is_not_broken():
    word = "1234567890" * 12
    assert word in wrapped(f"the number {word} is whole", width=40)


def test_a_cell_of_several_lines_begins_beside_its_name():
    assert text_table(["layer", "a\nb"], [["first", "1\n22"], ["second", "3"]]).splitlines() == [
        "           a",
        "layer      b",
        "-------------",
        "first      1",
        "          22",
        "second     3",
    ]
