"""An interrupt at any line of the package reaches the user, and leaves the model's own methods in place."""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

import relu_probe
from relu_probe import ReluProbe, measure

K, L = tf.keras, tf.keras.layers
LONG = bool(os.environ.get("RELU_PROBE_ALL_LINES"))  # about two minutes
X, Y = np.ones((4, 3), "f"), np.ones((4, 1), "f")
FILES = ("train_step.py", "probe.py", "instance_patch.py", "callback_list.py")
ROOT = str(Path(relu_probe.__file__).parent)


class Interrupts:
    """Raises KeyboardInterrupt at one line of the package's files; without a line it lists those that are run."""

    def __init__(self, at=None):
        self.at, self.lines = at, {}

    def __call__(self, frame, event, arg):
        name = frame.f_code.co_filename
        if not name.startswith(ROOT) or not name.endswith(FILES):
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


def leftovers(model):
    own = [name for name in ("train_step",) if name in vars(model)]
    function = type(model.train_function).__name__ == "CountedTrainFunction"
    return own + ["train_function"] * function + [layer.name for layer in model.layers if "call" in vars(layer)]


@pytest.mark.parametrize("work", [fit, lambda model: measure(model, (X, Y))], ids=["fit", "measure"])
def test_an_interrupt_at_any_line_leaves_nothing(work):
    lines = Interrupts().run(lambda: work(net()))
    assert len(lines) > 20
    left = {}
    for line in lines[:: 1 if LONG else 25]:
        model = net()
        with pytest.raises(KeyboardInterrupt):
            Interrupts(line).run(lambda model=model: work(model))
        model.fit(X, Y, verbose=0)  # at the latest before the next fit, which has no probe
        if found := leftovers(model):
            left[line] = found
    assert left == {}


def test_where_warnings_are_errors_a_fault_of_the_probe_does_not_end_the_fit(monkeypatch, capsys):
    def fails(self, model, uncounted_steps):
        raise RuntimeError("planted")

    monkeypatch.setattr("relu_probe.callbacks.report_source.TrainingBatches.begin_epoch", fails)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net().fit(X, Y, verbose=0, callbacks=[ReluProbe()])
    assert "measuring stopped: RuntimeError: planted The training goes on." in capsys.readouterr().err
