"""Mistakes planted in `shrink`, each of which is refused: the predictions of the smaller model would differ."""

import numpy as np
import pytest
import tensorflow as tf
from shrink_models import data, dead, model_of, outputs, randomized

from relu_probe import shrink
from relu_probe.cure import channel_flow, cuts
from relu_probe.cure.channel_flow import ChannelFlow
from relu_probe.diagnosis import consumers

pytestmark = pytest.mark.once

K, L = tf.keras, tf.keras.layers


def image_net():
    return randomized(
        model_of(
            (6, 6, 2),
            *(dead(L.Conv2D, 4, 3, name="a"), L.BatchNormalization(), L.Conv2D(4, 2, name="b"), L.ReLU(name="act")),
        )
    )


def residual():
    x = K.Input((5,))
    h = L.Dense(5)(x)
    return K.Model(x, L.Dense(2)(L.Add()([h, dead(L.Dense, 5, name="a")(h)])))


def assert_refused(model, x, layer, error=RuntimeError):
    before = outputs(model, x)
    with pytest.raises(error, match=f"differ by .* in batch 0, sample .* another output is {layer}"):
        shrink(model, x)
    assert np.array_equal(before[0], outputs(model, x)[0])


def test_without_a_mistake():
    assert shrink(image_net(), data(6, 6, 2)).units_removed == 1


def test_a_lost_constant_of_batch_normalization(monkeypatch):
    monkeypatch.setattr(cuts, "response", lambda layer, value: 0.0)
    assert_refused(image_net(), data(6, 6, 2), "b")


def test_a_padded_convolution_that_takes_a_constant(monkeypatch):
    monkeypatch.setattr(channel_flow, "fold_target", lambda trace, call: (call.layer.bias, 1))
    monkeypatch.setattr(cuts, "fold_target", lambda trace, call: (call.layer.bias, 1))
    layers = [dead(L.Conv1D, 4, 1, name="a"), L.BatchNormalization(), L.Conv1D(2, 3, padding="same", name="padded")]
    assert_refused(randomized(model_of((5, 5), *layers)), data(5, 5), "padded")


def test_repeat_for_tile(monkeypatch):
    repeated = {**consumers._MOVES, "Flatten": lambda call, tensor, sources: np.sort(sources.reshape(-1))}
    monkeypatch.setattr(consumers, "_MOVES", repeated)
    assert_refused(model_of((6, 6, 2), dead(L.Conv2D, 4, 3, name="a")), data(6, 6, 2), "out")


def test_another_unit_removed(monkeypatch):
    """The live unit before the dead one, whose outgoing weights go too."""
    follow = ChannelFlow._activated

    def shifted(self, call, flow):
        found = follow(self, call, flow)
        return found._replace(value=np.roll(found.value, 1)) if call.layer.name == "a" else found

    monkeypatch.setattr(ChannelFlow, "_activated", shifted)
    assert_refused(image_net(), data(6, 6, 2), "b")


def test_a_residual_unit_removed(monkeypatch):
    """Removing it from one of two tensors that are added is impossible; from both, it takes what is alive."""

    def first_flow(self, call):
        if type(call.layer).__name__ != "Add":
            return passed(self, call)
        return self._flow_of(call.inputs[1])

    passed = ChannelFlow._passed
    monkeypatch.setattr(ChannelFlow, "_passed", first_flow)
    x = data(5)
    with pytest.raises((ValueError, RuntimeError)):
        shrink(residual(), x)
