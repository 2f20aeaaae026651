"""The overview, against a slow and obvious computation, pixel by pixel."""

import numpy as np
import pytest
from colour_vision import COLOUR_VISION, lab

from relu_probe import LayerReport, Report
from relu_probe.report.fit_reports import FitReports
from relu_probe.report.life_image import UNKNOWN
from relu_probe.tensorboard.canvas import BLACK, fitted
from relu_probe.tensorboard.layer_groups import group_name, layer_groups
from relu_probe.tensorboard.overview import MOST_ROWS, Overview
from relu_probe.tensorboard.overview_picture import ALIVE, MOST_COLUMNS, OverviewRow, dead_colours, draw_overview

pytestmark = pytest.mark.once


def overview(reports):
    """Returns the overview of reports `[{layer: active}, ...]` on 10 positions."""
    followed, overview = FitReports(), Overview()
    for epoch, layers in enumerate(reports):
        measured = {n: LayerReport(10, 10, a) if a else LayerReport(0, 0, [0, 0]) for n, a in layers.items()}
        followed.add(Report(measured, epoch))
        overview.add(followed.newest, epoch, followed.deaths())
    return overview


def cells(picture, rows, columns):
    """Returns the colour of each cell: of those in a line of the picture, without the white lines and the text around."""
    top, height = 36, min((213 - 36 - 42) // rows, 30)
    lines = [picture[top + i * height + height // 2] for i in range(rows)]
    coloured = np.flatnonzero((lines[0] != UNKNOWN).any(axis=-1) & (np.ptp(lines[0].astype(int), axis=-1) > 12))
    left, right = coloured[0], coloured[-1] + 2
    centres = left + (np.arange(columns) + 0.5) * (right - left) / columns
    return [[tuple(line[int(x)]) for x in centres] for line in lines]


def test_each_cell_has_the_colour_of_its_dead_fraction():
    reports = [{"a": [1, 1, 1, 1], "b": [1, 1]}, {"a": [1, 0, 1, 1], "b": []}, {"a": [0, 0, 0, 1], "b": [0, 0]}]
    found = cells(overview(reports).draw(), rows=2, columns=3)
    expected = [[dead_colours(f) for f in row] for row in ([0, 1 / 4, 3 / 4], [0, np.nan, 1])]
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found[0], dead_colours([0, 1 / 4, 2 / 4]))  # the planted mistake: another fraction


def framed_columns(picture, columns):
    """Returns the columns whose upper border is black."""
    black = np.flatnonzero((picture[35] == BLACK).all(axis=-1))
    coloured = np.flatnonzero(np.ptp(picture[50].astype(int), axis=-1) > 12)
    width = (coloured[-1] + 2 - coloured[0]) / columns
    return sorted({int((x - coloured[0]) // width) for x in black[len(black) // 4 : -1]})


@pytest.mark.parametrize("first", [1, 5, 9])
def test_the_epoch_of_the_first_deaths_is_framed(first):
    reports = [{"a": [5, 0 if epoch >= first else 5]} for epoch in range(10)]
    assert framed_columns(overview(reports).draw(), 10) == [first]
    assert framed_columns(overview([{"a": [5, 0]}] * 10).draw(), 10) == []  # dead from the start: nothing is dated


def test_the_title_tells_the_worst_layer_and_since_when(monkeypatch):
    shown = []
    monkeypatch.setattr("relu_probe.tensorboard.overview.draw_overview", lambda title, *_: shown.append(title))
    overview([{"a": [1, 1], "b": [1, 1]}, {"a": [1, 0], "b": [0, 0]}]).draw()
    overview([{"a": [1, 1]}]).draw()
    assert shown == [["b: 2 of 2 dead", "first deaths in epoch 1"], ["none of 2 ReLU neurons dead"]]


def test_the_title_shows_the_dates_of_long_trainings_whole(monkeypatch):
    """A cut date would be another date."""
    shown = []
    monkeypatch.setattr(
        "relu_probe.tensorboard.overview_picture.fitted",
        lambda text, width, size: shown.append((text, width, size)) or text,
    )
    followed, found = FitReports(), Overview()
    for epoch, active in ((12_344, [1, 1, 1]), (12_345, [0, 1, 1]), (12_350, [0, 0, 0])):
        followed.add(Report({"a": LayerReport(10, 10, active)}, epoch))
        found.add(followed.newest, epoch, followed.deaths())
    found.draw()
    text, width, size = shown[1]
    assert text == "first deaths in epoch 12345, half by epoch 12350"
    assert fitted(text, width, size) == text
    assert fitted(text.replace("deaths", "deaths of neurons"), width, size) != text  # the planted mistake: more words


def test_of_many_epochs_a_column_shows_the_worst():
    """One epoch of 1,000 in which a layer was dead must not disappear."""
    fractions = np.zeros(1000)
    fractions[777] = 1.0
    picture = draw_overview(["title"], [OverviewRow("a", fractions, 0, 4, None)], range(1000))
    dead = (picture[50] == dead_colours(1.0)).all(axis=-1)
    assert 1 <= dead.sum() <= picture.shape[1] / MOST_COLUMNS
    thinned = fractions[::10]  # the planted mistake: every tenth epoch
    assert not thinned.any()


def test_the_neurons_of_layers_that_share_a_row_are_pooled():
    names = [f"block_{i // 2}/{'ab'[i % 2]}" for i in range(2 * MOST_ROWS)]
    drawn = overview([{name: [0] if name.endswith("a") else [1, 1, 1] for name in names}])
    groups = layer_groups(names, MOST_ROWS)
    assert groups == [[f"block_{i}/a", f"block_{i}/b"] for i in range(MOST_ROWS)]
    np.testing.assert_array_equal(drawn._fractions(groups), [[1 / 4]] * MOST_ROWS)  # the mean of the layers were 1/2
    assert drawn.draw().shape[0] > 60 * 14


def test_groups_are_neighbours_with_common_names():
    names = ["stem", *(f"conv{i}_block{j}_relu" for i in range(3) for j in range(4)), "head"]
    groups = layer_groups(names, 5)
    assert [name for group in groups for name in group] == names
    assert [group_name(group) for group in groups] == [
        "stem",
        *(f"conv{i}_[block0_relu to block3_relu]" for i in range(3)),
        "head",
    ]
    assert layer_groups(names, 100) == [[name] for name in names]
    sizes = [len(group) for group in layer_groups([f"re_lu_{i}" for i in range(600)], MOST_ROWS)]
    assert len(sizes) == MOST_ROWS
    assert max(sizes) <= 20  # names that do not differ otherwise make groups of like size


def test_layers_that_come_late_are_unknown_before():
    late = overview([{"a": [1, 1]}, {"a": [1, 1], "b": [0, 0]}])
    np.testing.assert_array_equal(late._fractions([["a"], ["b"]]), [[0, 0], [np.nan, 1]])
    assert overview([{}]).draw() is None


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_any_death_is_seen_with_every_colour_vision(vision):
    """A difference of 2.3 is just noticeable (Mahy et al. 1994)."""
    colours = lab(dead_colours([0, 0.001, 0.5, 1, np.nan]), vision)
    distances = np.linalg.norm(np.diff(colours, axis=0), axis=-1)
    assert distances.min() > 12
    assert np.all(np.diff(colours[1:4, 0]) < -2)  # darker with the fraction
    faint = lab(np.array([ALIVE, (214, 215, 228)]), vision)  # the planted mistake: a tint that nobody sees
    assert np.linalg.norm(faint[0] - faint[1]) < 12
