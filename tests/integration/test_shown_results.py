"""What a user gets shows itself: in one line in a debugger, as a table in a notebook."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
from html_cells import Cells
from models import sequential

import relu_probe
from relu_probe import ReluProbe, Revive, diagnose, revive, shrink, watch

K, L = tf.keras, tf.keras.layers
NEURONS = 300  # an array of so many is printed in many lines
X = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
Y = X[:, :1]


@pytest.fixture(scope="module")
def results():
    """A value of every class that the package exports."""
    bias = K.initializers.Constant(np.where(np.arange(NEURONS) < 150, -100.0, 1.0))
    hidden = L.Dense(NEURONS, "relu", bias_initializer=bias, name="hidden")
    model = sequential(3, hidden, L.Dense(1), optimizer=K.optimizers.SGD(0.0))
    probe = ReluProbe()
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[probe])
    with watch(model) as w:
        model.train_on_batch(X, Y)
        w.end_epoch(0)
    found = diagnose(model, (X, Y), probe=probe)
    shrunk, revival = shrink(model, X), revive(model, (X, Y))
    parts = [probe.report, probe.report["hidden"], probe.history, probe.history["hidden"], probe.loss_jumps[0]]
    parts += [found, found.layers["hidden"], found.advice[0], revival, revival.layers["hidden"], shrunk, w]
    return {type(part).__name__: part for part in [*parts, probe, Revive((X, Y))]}


def is_one_line(value):
    return len(repr(value).splitlines()) == 1 and len(repr(value)) < 300


def test_every_class_is_there(results):
    classes = {name for name in relu_probe.__all__ if inspect.isclass(getattr(relu_probe, name))}
    assert classes <= set(results)


def test_each_is_one_line_in_a_debugger(results):
    assert [name for name, value in results.items() if not is_one_line(value)] == []
    assert not is_one_line(results["LayerReport"].active)  # the planted mistake: arrays, as dataclasses show them


def test_the_lines(results):
    counts = "<LayerReport: 150 of 300 dead, on 256 samples>"
    assert repr(results["LayerDiagnosis"]) == f"<LayerDiagnosis: bias 150; {counts}>"
    assert repr(results["Advice"]).startswith("<Advice 'general' on hidden, 150 neurons: ")
    assert repr(results["Revival"]) == "<Revival: 150 of 150 dead neurons revived, on 256 samples>"
    assert repr(results["LayerRevival"]) == "<LayerRevival: 150 neurons revived, 0 left>"
    newest = "<Report watch epoch 0: 150 of 300 dead, worst hidden 50 %>"
    assert repr(results["Watch"]).endswith(f": 1 report, newest {newest}>")


@pytest.mark.parametrize("name", ["Report", "History", "Revival", "Shrunk"])
def test_a_notebook_shows_the_numbers_of_the_printed_table(results, name):
    page, printed = Cells(results[name]._repr_html_()), str(results[name])
    shown = [" ".join(row).split() for row in page.rows]
    for first in ["hidden", *(["total"] if name in ("Report", "Shrunk") else [])]:
        (line,) = [line.split() for line in printed.splitlines() if line.split()[:1] == [first]]
        assert line in shown
    assert printed.splitlines()[0] in page.text
    assert [*line[:-1], f"{line[-1]}0"] not in shown  # the planted mistake: another number


def test_a_notebook_shows_the_text_of_a_diagnosis(results):
    assert str(results["Diagnosis"]) in Cells(results["Diagnosis"]._repr_html_()).text
