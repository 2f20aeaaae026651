"""`shrink(remove="certified")`: both models agree on every input in the box, also where the data shows nothing."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from shrink_models import outputs

from relu_probe import diagnose, shrink
from relu_probe.cure.channel_flow import ChannelFlow

K, L = tf.keras, tf.keras.layers


def network(seed, low=-1.0):
    """Convolutions, BatchNormalization, pooling and Dense layers with random weights, and many dead units."""
    rng = np.random.default_rng(seed)
    model = K.Sequential(
        [
            *(K.Input((4, 4, 2)), L.Conv2D(6, 2, activation="relu", name="a"), L.BatchNormalization()),
            *(L.Conv2D(5, 2, name="b"), L.ReLU(6.0, name="act"), L.MaxPooling2D(2)),
            *(L.Flatten(), L.Dense(8, "relu", name="c"), L.Dense(2, name="out")),
        ]
    )
    for layer in model.layers:
        values = layer.get_weights()
        if isinstance(layer, L.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in values])
        elif values:
            layer.set_weights(
                [rng.normal(0, 1 / np.sqrt(len(values[1])), values[0].shape), rng.normal(low, 1, values[1].shape)]
            )
    return model


def points_in(low, high, shape, rng):
    """Corners of the box and points inside it."""
    corners, inside = rng.integers(0, 2, (100, *shape)), rng.random((100, *shape))
    return (low + (high - low) * np.concatenate([corners, inside])).astype(np.float32)


def agree(a, b):
    return all(np.allclose(x, y, rtol=1e-4, atol=1e-5 * np.abs(x).max()) for x, y in zip(a, b))


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), low=st.floats(-1, 1, width=32), size=st.floats(0, 1, width=32))
def test_both_models_agree_on_corners_and_random_points(seed, low, size):
    model, high = network(seed), np.float32(low + size)
    found = shrink(model, np.full((1, 4, 4, 2), low, np.float32), bounds=(low, high), remove="certified")
    x = points_in(low, high, (4, 4, 2), np.random.default_rng(seed))
    assert agree(outputs(model, x), outputs(found.model, x))


def test_units_are_removed_and_the_check_can_fail():
    model, x = network(1), np.zeros((1, 4, 4, 2))
    points = points_in(-1, 1, (4, 4, 2), np.random.default_rng(0))
    certified = shrink(model, x, bounds=(-1, 1), remove="certified")
    assert certified.units_removed > 0
    assert agree(outputs(model, points), outputs(certified.model, points))
    dead = shrink(model, x)  # on one sample, which proves nothing about others
    assert dead.units_removed > certified.units_removed
    assert not agree(outputs(model, points), outputs(dead.model, points))


def test_what_is_removed_is_certified():
    model, x = network(3), np.zeros((1, 4, 4, 2))
    layers = diagnose(model, x, bounds=(-0.5, 0.5)).layers
    found = shrink(model, x, bounds=(-0.5, 0.5), remove="certified")
    assert found.removed["c"].tolist() == np.flatnonzero(layers["c"].certified).tolist() != []
    for key, layer in layers.items():
        left = [i for neurons in found.left.get(key, {}).values() for i in neurons]
        assert left == np.flatnonzero(layer.report.dead & ~layer.certified).tolist()
    assert list(found.left["c"]) == ["it is dead on the data, and may fire for another input within the bounds"]


def test_where_the_bounds_stop_is_said():
    low = K.initializers.Constant(-50.0)
    layers = [L.LayerNormalization(name="norm"), L.Dense(3, "relu", bias_initializer=low, name="a"), L.Dense(1)]
    found = shrink(K.Sequential([K.Input((3,)), *layers]), np.zeros((2, 3)), bounds=(0, 1), remove="certified")
    assert found.removed == {}
    assert list(found.left["a"]) == ["the bounds could not be carried through norm"]
    assert "a: 3 left: the bounds could not be carried through norm." in str(found)


@pytest.mark.once
def test_a_neuron_that_is_not_certified_removed_is_found(monkeypatch):
    """The planted mistake."""
    init = ChannelFlow.__init__

    def all_dead(self, trace, relus, dead, tied):
        init(self, trace, relus, {key: np.ones_like(mask) for key, mask in dead.items()}, tied)

    monkeypatch.setattr(ChannelFlow, "__init__", all_dead)
    x = points_in(-1, 1, (4, 4, 2), np.random.default_rng(0))
    with pytest.raises(RuntimeError, match="the predictions of the smaller model differ"):
        shrink(network(1), x, bounds=(-1, 1), remove="certified")
