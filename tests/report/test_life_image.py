"""Images of a layer's history, against a slow and obvious computation of single pixels."""

import re

import numpy as np
import pytest
from colour_vision import COLOUR_VISION, lab
from hypothesis import given, settings
from hypothesis import strategies as st

from relu_probe import LayerReport
from relu_probe.report import life_image
from relu_probe.report.life_image import DEAD, ROWS, UNKNOWN, WIDTH, colours, draw_life, draw_lives

pytestmark = pytest.mark.once

N = 1000


def reports(active):
    """Returns the reports of counts `(reports, neurons)` on N positions."""
    return [LayerReport(samples=N, positions=N, active=row) for row in active]


def dying(neurons, epochs, seed):
    """Returns counts of neurons that die at random epochs and stay dead; a third of them never dies."""
    rng = np.random.default_rng(seed)
    active = rng.integers(1, N + 1, (epochs, neurons))
    death = rng.integers(0, epochs * 3 // 2 + 1, neurons)
    active[np.arange(epochs)[:, None] >= death] = 0
    return active


def is_dead(image):
    return (image == DEAD).all(axis=-1)


def cells(image, rows, columns):
    return image[:: len(image) // rows, :: image.shape[1] // columns]


def has_edge(dead):
    """Returns whether the dead are the first columns of each row, and never fewer than in the row above."""
    counts = dead.sum(axis=1)
    return (dead == (np.arange(dead.shape[1]) < counts[:, None])).all() and (np.diff(counts) >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_dead_neurons_have_a_common_edge(seed):
    layers = reports(dying(40, 9, seed))
    image = draw_life(layers)
    assert has_edge(is_dead(image))
    assert is_dead(image).mean() == np.mean([layer.dead for layer in layers])
    assert not has_edge(
        np.stack([layer.dead for layer in layers])
    )  # the planted mistake: neurons in the order of the layer


def test_each_cell_has_the_colour_of_its_neuron():
    active = dying(16, 5, seed=1)
    found = cells(draw_life(reports(active)), 5, 16)
    columns = [tuple(column) for column in active.T]
    for j in range(16):
        shown = found[:, j]
        fitting = [c for c in columns if all(has_colour(pixel, count) for pixel, count in zip(shown, c))]
        assert fitting, f"column {j} shows no neuron's history"
        columns.remove(fitting[0])
    assert not columns
    assert not has_colour(found[0, -1], 1)  # the planted mistake: the colour of another rate


def has_colour(pixel, count):
    expected = DEAD if count == 0 else colours(count / N)
    return tuple(pixel) == tuple(expected)


def test_living_neurons_are_sorted_by_rate_with_revived_ones_at_the_edge():
    active = np.array([[500, 0, 9, 900, 0], [500, 7, 9, 900, 0]])  # the second revives, the last is dead
    found = cells(draw_life(reports(active)), 2, 5)
    assert [tuple(p) for p in found[1]] == [DEAD, *(tuple(colours(a / N)) for a in (7, 9, 500, 900))]
    assert [tuple(p) for p in found[0]] == [DEAD, DEAD, *(tuple(colours(a / N)) for a in (9, 500, 900))]


@pytest.mark.parametrize("row", [0, 3])
def test_one_dead_or_living_neuron_of_5000_is_visible(row):
    active = np.full((5, 5000), 600)
    active[row, 4321] = 0
    dead = is_dead(draw_life(reports(active)))
    height = len(dead) // 5
    assert dead.reshape(5, height, -1).any(axis=(1, 2)).tolist() == [i == row for i in range(5)]
    assert dead.any(axis=0).sum() == 1
    mean = active.reshape(5, 500, 10).mean(axis=2) / N  # the planted mistake: the mean of each group
    assert not is_dead(colours(mean)).any()

    living = ~is_dead(draw_life(reports(600 - active))).reshape(5, height, -1)
    assert living.any(axis=(1, 2)).tolist() == [i == row for i in range(5)]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 1500), st.integers(1, 200), st.integers(0, 2**31))
def test_images_of_any_size(neurons, epochs, seed):
    active = dying(neurons, epochs, seed)
    image = draw_life(reports(active))
    height, width, _ = image.shape
    assert width <= WIDTH
    assert height <= 2 * ROWS
    assert width >= min(neurons, WIDTH)
    rows = min(epochs, ROWS)
    groups = [group.any() for group in np.split(active == 0, np.arange(1, rows) * epochs // rows)]
    assert is_dead(image).reshape(rows, -1).any(axis=1).tolist() == groups


def test_layers_that_are_drawn_together_get_the_images_that_they_get_alone():
    histories = [reports(dying(700, 5, seed)) for seed in range(3)]
    histories[1][0] = LayerReport(samples=0, positions=0, active=np.zeros(700, int))
    together, alone = draw_lives(histories), [draw_life(layers) for layers in histories]
    np.testing.assert_array_equal(together, alone)
    assert not np.array_equal(together[0], alone[1])  # the planted mistake: the images in another order
    with pytest.raises(ValueError, match="measured at least once"):
        draw_lives([histories[0], histories[1][:1]])


@pytest.mark.parametrize("neurons", [1, 16, 513, 1500])
def test_an_image_does_not_depend_on_how_many_neurons_are_taken_at_once(neurons, monkeypatch):
    layers = reports(dying(neurons, 5, 0))
    whole = draw_life(layers)
    for at_once in (1, 100, neurons):
        monkeypatch.setattr(life_image, "_AT_ONCE", at_once)
        np.testing.assert_array_equal(draw_life(layers), whole)
    sums = life_image._sums
    monkeypatch.setattr(life_image, "_AT_ONCE", 100)
    monkeypatch.setattr(life_image, "_sums", lambda states, order, columns: sums(states, order, columns)[..., ::-1])
    assert neurons == 1 or not np.array_equal(draw_life(layers), whole)  # the planted mistake: parts in the wrong order


def test_unknown_cells_are_white():
    seen = LayerReport(samples=N, positions=N, active=[500, 0, 0], nan=[False, False, True])
    found = cells(draw_life([LayerReport(samples=0, positions=0, active=[]), seen]), 2, 3)
    assert {tuple(p) for p in found[0]} == {UNKNOWN}
    assert {tuple(p) for p in found[1]} == {DEAD, UNKNOWN, tuple(colours(0.5))}


def test_no_reports_and_reports_of_different_layers_are_refused():
    message = (
        "found reports that measured layers of [{}] neurons; expected one layer, measured at least once. "
        "Pass the reports of one fit: [report[name] for report in probe.reports]."
    )
    for layers, sizes in (([], ""), (reports([[1, 2]]) + reports([[1, 2, 3]]), "2, 3")):
        with pytest.raises(ValueError, match=f"^{re.escape(message.format(sizes))}$"):
            draw_life(layers)


def test_the_map_is_cividis():
    matplotlib = pytest.importorskip("matplotlib")
    rates = np.linspace(0, 1, 256)
    for name, differs in (("cividis", False), ("viridis", True)):
        distance = np.linalg.norm(lab(colours(rates)) - lab(matplotlib.colormaps[name](rates, bytes=True)), axis=-1)
        assert bool(distance.max() > 4) is differs


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_dead_has_a_distinct_colour_with_every_colour_vision(vision):
    """A difference of 2.3 is just noticeable (Mahy et al. 1994); one of 40 is another colour."""
    others = lab(np.vstack([colours(np.linspace(0, 1, 101)), [UNKNOWN]]), vision)

    def nearest(colour):
        return np.linalg.norm(others - lab(colour, vision), axis=-1).min()

    assert nearest(DEAD) > 40
    if vision != "normal":
        assert min(nearest(c) for c in ((213, 94, 0), (0, 0, 0), (255, 255, 255))) < 40  # planted: the usual choices
