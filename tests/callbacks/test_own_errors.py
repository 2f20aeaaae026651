"""An error of a callback's own, in any of its hooks, ends no training: one warning, and the callback does nothing more in that fit."""

import warnings

import harm
import numpy as np
import pytest
import tensorflow as tf

from relu_probe import ReluProbe, Revive

K = tf.keras
X, Y = harm.data(128)
PLACES = {  # a function that a hook calls -> of which callback
    "relu_probe.callbacks.relu_probe.check_names": ReluProbe,
    "relu_probe.callbacks.relu_probe.LayerSelection": ReluProbe,
    "relu_probe.measuring.train_step.find_relus": ReluProbe,
    "relu_probe.callbacks.relu_probe.call_last": ReluProbe,
    "relu_probe.structure.layer_selection.LayerSelection.add_late_layers": ReluProbe,
    "relu_probe.callbacks.loss_recorder.LossRecorder.begin_epoch": ReluProbe,
    "relu_probe.callbacks.relu_probe.arm_next_step": ReluProbe,
    "relu_probe.callbacks.loss_recorder.LossRecorder.note_loss": ReluProbe,
    "relu_probe.callbacks.loss_recorder.LossRecorder.end_epoch": ReluProbe,
    "relu_probe.callbacks.relu_probe.epoch_logs": ReluProbe,
    "relu_probe.callbacks.relu_probe.disarm": ReluProbe,
    "relu_probe.callbacks.relu_probe.ReluProbe._close": ReluProbe,
    "relu_probe.callbacks.revive.check_before_fit": Revive,
    "relu_probe.callbacks.revive._probe_with_event_file": Revive,
}


def planted(*args, **kwargs):
    raise TypeError("planted")


def fitted(callbacks):
    return harm.fitted(harm.net(), callbacks, X, Y)


@pytest.mark.parametrize("place", list(PLACES))
def test_an_error_in_a_hook_does_not_end_the_fit(place, monkeypatch):
    kind, expected = PLACES[place], fitted([])
    callback = kind() if kind is ReluProbe else Revive((X, Y))
    monkeypatch.setattr(place, planted)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fitted([callback])
    told = [str(each.message) for each in caught if "relu_probe" in str(each.message)]
    assert told == [
        f"relu_probe: {kind.__name__} stopped: TypeError: planted The training goes on. strict=True would raise."
    ]
    assert harm.same({**found, "history": []}, {**expected, "history": []})
    monkeypatch.undo()
    fitted([callback])  # in the next fit all is as new
    if kind is ReluProbe:
        assert callback.report.samples == len(X)


def test_strict_raises_it(monkeypatch):
    monkeypatch.setattr("relu_probe.callbacks.relu_probe.call_last", planted)
    with pytest.raises(TypeError, match="planted"):
        fitted([ReluProbe(strict=True)])


def test_data_whose_own_code_raises_fails_before_the_first_step():
    class Broken(getattr(K.utils, "PyDataset", None) or K.utils.Sequence):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise KeyError("a file")

    model = harm.net()
    before = model.get_weights()
    with pytest.raises(ValueError, match="data= cannot be read: 'a file'"):
        harm.fitted(model, [ReluProbe(data=Broken())], X, Y)
    assert all(map(np.array_equal, before, model.get_weights()))
