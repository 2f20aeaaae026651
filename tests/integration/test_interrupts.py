"""An interrupt at any line of the package reaches the user, and leaves the model's own methods in place."""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from models import sequential
from tensorflow.python.eager import context

import relu_probe
from relu_probe import ReluProbe, measure, revive, watch

K, L = tf.keras, tf.keras.layers
LONG = bool(os.environ.get("RELU_PROBE_ALL_LINES"))  # some minutes; else a few lines of each kind of work
X, Y = np.ones((4, 3), "f"), np.ones((4, 1), "f")
ROOT = Path(relu_probe.__file__).parent
FOLDERS = tuple(
    f"{ROOT / name}{os.sep}"
    for name in ("callbacks", "counting", "cure", "diagnosis", "measuring", "structure", "utils")
)


class Interrupts:
    """Raises KeyboardInterrupt at one line of the package's files; without a line it lists those that are run."""

    def __init__(self, at=None):
        self.at, self.lines = at, {}

    def __call__(self, frame, event, arg):
        name = frame.f_code.co_filename
        if not name.startswith(FOLDERS):
            return None
        line = (name, frame.f_lineno)
        if event == "line":
            self.lines[line] = True
            if line == self.at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self

    def run(self, work):
        sys.settrace(self)
        try:
            work()
        finally:
            sys.settrace(None)
        return list(self.lines)


def net():
    return sequential(3, L.Dense(4, "relu", name="hidden"), L.Dense(1), run_eagerly=True)


def fit(model):
    model.fit(X, Y, verbose=0, callbacks=[ReluProbe()])


def loop(model):
    with watch(model) as w:
        model.train_on_batch(X, Y)
        model(X)
    w.report()


def cured(model):
    revive(model, (np.ones((100, 3), "f"), np.ones((100, 1), "f")))


def counted_by(model):
    model.fit(X, Y, verbose=0, callbacks=[probe := ReluProbe()])
    return probe.report.samples


def leftovers(model):
    own = [name for name in ("train_step",) if name in vars(model)]
    if "relu_probe" in f"{model.train_function!r} {type(model.train_function).__module__}":
        own.append("train_function")
    observers = context.context().op_callbacks
    return own + [layer.name for layer in model.layers if "call" in vars(layer)] + ["an observer"] * bool(observers)


@pytest.mark.parametrize(
    "work", [fit, lambda model: measure(model, (X, Y)), loop, cured], ids=["fit", "measure", "watch", "revive"]
)
def test_an_interrupt_at_any_line_leaves_nothing(work):
    lines = Interrupts().run(lambda: work(net()))
    assert len(lines) > 100
    left = {}
    for line in lines[:: 1 if LONG else len(lines) // 8]:
        model = net()
        try:
            Interrupts(line).run(lambda model=model: work(model))
        except KeyboardInterrupt:
            if found := leftovers(model):
                left[line] = found
            elif counted_by(model) != len(X):
                left[line] = "the next fit counts wrongly"
    assert left == {}


def test_where_warnings_are_errors_a_fault_of_the_probe_does_not_end_the_fit(monkeypatch, capsys):
    def fails(self, model, uncounted_steps):
        raise RuntimeError("planted")

    monkeypatch.setattr("relu_probe.callbacks.report_source.TrainingBatches.begin_epoch", fails)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net().fit(X, Y, verbose=0, callbacks=[ReluProbe()])
    assert "measuring stopped: RuntimeError: planted The training goes on." in capsys.readouterr().err
