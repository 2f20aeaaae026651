"""The picture of a layer's life, against a slow and obvious second painter."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relu_probe import LayerReport
from relu_probe.report.life_image import DEAD, ROWS, UNKNOWN, WIDTH, LifeImage, colours, draw_life

N = 1000


def reports(active):
    """Of counts `(reports, neurons)` on N positions."""
    return [LayerReport(samples=N, positions=N, active=row) for row in active]


def dying(neurons, epochs, seed):
    """Counts of neurons that die at random epochs and stay dead; a third of them never does."""
    rng = np.random.default_rng(seed)
    active = rng.integers(1, N + 1, (epochs, neurons))
    death = rng.integers(0, epochs * 3 // 2 + 1, neurons)
    active[np.arange(epochs)[:, None] >= death] = 0
    return active


def is_dead(picture):
    return (picture == DEAD).all(axis=-1)


def cells(picture, rows, columns):
    return picture[:: len(picture) // rows, :: picture.shape[1] // columns]


def edge(dead):
    """Whether in each row the dead are the first columns, and never fewer than in the row before."""
    counts = dead.sum(axis=1)
    return (dead == (np.arange(dead.shape[1]) < counts[:, None])).all() and (np.diff(counts) >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_death_forms_an_edge(seed):
    told = reports(dying(40, 9, seed))
    picture = draw_life(told)
    assert edge(is_dead(picture))
    assert is_dead(picture).mean() == np.mean([layer.dead for layer in told])
    assert not edge(LifeImage.of(told).dead)  # the planted mistake: neurons as they come


def test_each_cell_has_its_neurons_colour():
    active = dying(16, 5, seed=1)
    found = cells(draw_life(reports(active)), 5, 16)
    columns = [tuple(column) for column in active.T]
    for j in range(16):
        shown = found[:, j]
        fitting = [c for c in columns if all(_looks(pixel, count) for pixel, count in zip(shown, c))]
        assert fitting, f"column {j} shows no neuron's life"
        columns.remove(fitting[0])
    assert not columns
    assert not _looks(found[0, -1], 1)  # the planted mistake: another rate's colour


def _looks(pixel, count):
    expected = DEAD if count == 0 else colours(count / N)
    return tuple(pixel) == tuple(expected)


def test_the_living_are_sorted_by_rate_and_the_revived_stand_at_the_edge():
    active = np.array([[500, 0, 9, 900, 0], [500, 7, 9, 900, 0]])  # the second is revived, the last is dead
    found = cells(draw_life(reports(active)), 2, 5)
    assert [tuple(p) for p in found[1]] == [DEAD, *(tuple(colours(a / N)) for a in (7, 9, 500, 900))]
    assert [tuple(p) for p in found[0]] == [DEAD, DEAD, *(tuple(colours(a / N)) for a in (9, 500, 900))]


@pytest.mark.parametrize("row", [0, 3])
def test_of_5000_neurons_the_one_dead_is_seen_and_the_one_living(row):
    active = np.full((5, 5000), 600)
    active[row, 4321] = 0
    dead = is_dead(draw_life(reports(active)))
    height = len(dead) // 5
    assert dead.reshape(5, height, -1).any(axis=(1, 2)).tolist() == [i == row for i in range(5)]
    assert dead.any(axis=0).sum() == 1
    mean = active.reshape(5, 500, 10).mean(axis=2) / N  # the planted mistake: the mean of a group, however pooled
    assert not is_dead(colours(mean)).any()

    living = ~is_dead(draw_life(reports(600 - active))).reshape(5, height, -1)
    assert living.any(axis=(1, 2)).tolist() == [i == row for i in range(5)]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 1500), st.integers(1, 200), st.integers(0, 2**31))
def test_of_any_size(neurons, epochs, seed):
    active = dying(neurons, epochs, seed)
    picture = draw_life(reports(active))
    height, width, _ = picture.shape
    assert width <= WIDTH
    assert height <= 2 * ROWS
    assert width >= min(neurons, WIDTH)
    rows = min(epochs, ROWS)
    groups = [group.any() for group in np.split(active == 0, np.arange(1, rows) * epochs // rows)]
    assert is_dead(picture).reshape(rows, -1).any(axis=1).tolist() == groups


def test_what_is_not_known_is_white():
    seen = LayerReport(samples=N, positions=N, active=[500, 0, 0], nan=[False, False, True])
    found = cells(draw_life([LayerReport(samples=0, positions=0, active=[]), seen]), 2, 3)
    assert {tuple(p) for p in found[0]} == {UNKNOWN}
    assert {tuple(p) for p in found[1]} == {DEAD, UNKNOWN, tuple(colours(0.5))}


def test_no_report_or_other_layers_are_said():
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
    for name, far in (("cividis", False), ("viridis", True)):
        distance = np.linalg.norm(_lab(colours(rates)) - _lab(matplotlib.colormaps[name](rates, bytes=True)), axis=-1)
        assert bool(distance.max() > 4) is far


# Severe colour vision deficiency, on linear RGB (Machado, Oliveira and Fernandes 2009, table 1).
EYES = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def _lab(rgb, eye="normal"):
    """CIELAB, D65, of what an eye sees of sRGB bytes `(..., 3)`."""
    c = np.asarray(rgb)[..., :3] / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(EYES[eye]), 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    t = linear @ np.transpose(to_xyz) / [0.95047, 1, 1.08883]
    x, y, z = np.moveaxis(np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


@pytest.mark.parametrize("eye", EYES)
def test_dead_is_a_colour_of_its_own_in_every_eye(eye):
    """A difference of 2.3 can just be noticed (Mahy et al. 1994); 40 is another colour."""
    others = _lab(np.vstack([colours(np.linspace(0, 1, 101)), [UNKNOWN]]), eye)

    def nearest(colour):
        return np.linalg.norm(others - _lab(colour, eye), axis=-1).min()

    assert nearest(DEAD) > 40
    if eye != "normal":
        assert min(nearest(c) for c in ((213, 94, 0), (0, 0, 0), (255, 255, 255))) < 40  # planted: the usual choices
