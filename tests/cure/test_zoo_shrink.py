"""`shrink` over the zoo, the sick network and networks for images: predictions agree, and each dead neuron is gone or named."""

import numpy as np
import pytest
import tensorflow as tf
import zoo
from shrink_models import outputs, with_dead_channels

from relu_probe import measure, shrink

K, L = tf.keras, tf.keras.layers
# Rows whose model is no functional or Sequential one.
REFUSED = ("subclassed", "gan", "teacher_and_student")
ADDED = "whose input cannot be made smaller"
OWN = "its input is not the output of one linear layer alone"
WRAPPED = "its layer is of an unknown kind, or is called inside another layer"
LAST = "its layer keeps at least one unit"
# The layers of a row whose dead neuron is left, and the reason. All others lose it.
LEFT = {
    "custom_layer": {"inner": WRAPPED, "act": WRAPPED},
    "masked": {"hidden": ADDED},
    "shared": {"shared": ADDED},
    "convolutions_of_one_dimension": {"deep": OWN},
    "depthwise": {"deep": OWN},
    "time_distributed": {"hidden": WRAPPED},
    "time_distributed_model": {"hidden": WRAPPED},
}


def assert_equal_predictions(model, new, x):
    for a, b in zip(outputs(model, x), outputs(new, x)):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("name", zoo.rows())
def test_every_structure(name):
    row = zoo.rows()[name]
    model, x, y = zoo.killed(row), row.x(), row.y()
    if name in REFUSED:
        with pytest.raises(ValueError, match="a subclassed model"):
            shrink(model, (x, y))
        return
    weights, dead = [w.tobytes() for w in model.get_weights()], measure(model, x)
    found = shrink(model, (x, y))
    assert [w.tobytes() for w in model.get_weights()] == weights
    assert_equal_predictions(model, found.model, x)
    assert type(found.model) is type(model)
    wanted = {key: why for key, why in LEFT.get(name, {}).items() if dead[key].dead.any()}
    reasons = {key: " ".join(found.left[key]) for key in found.left}
    assert reasons.keys() == wanted.keys()
    assert all(wanted[key] in reasons[key] for key in wanted)
    after = measure(found.model, x)
    assert {key for key in after if after[key].dead.any()} == wanted.keys()
    losses = [each.evaluate(x, y, verbose=0) for each in (model, found.model)]
    assert np.allclose(*losses, rtol=1e-4)


def sick_network():
    """Half of each layer dead, by a step at a much too high rate."""
    x = np.random.default_rng(0).standard_normal((300, 8)).astype("float32")
    y = x.sum(1, keepdims=True)
    layers = [
        L.Dense(units, "relu", kernel_initializer=K.initializers.HeNormal(seed=i))
        for i, units in enumerate((32, 16, 8))
    ]
    model = K.Sequential([K.Input((8,)), *layers, L.Dense(1)])
    model.compile(K.optimizers.SGD(0.3), "mse")
    model.fit(x, y + 3, batch_size=300, verbose=0, epochs=1, shuffle=False)
    return model, x


def test_the_sick_network():
    model, x = sick_network()
    report = measure(model, x)
    dead = {key: np.flatnonzero(layer.dead) for key, layer in report.layers.items()}
    assert sum(map(len, dead.values())) > 0
    found = shrink(model, x)
    assert_equal_predictions(model, found.model, x)
    for key, neurons in dead.items():
        gone = found.removed.get(key, np.arange(0))
        stays = [i for left in found.left.get(key, {}).values() for i in left]
        assert sorted([*gone, *stays]) == neurons.tolist()


# --- networks for images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "size", "left"),
    [
        (lambda: K.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=10), 32, set()),
        (lambda: K.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10), 32, {ADDED, OWN}),
    ],
    ids=["MobileNetV2", "ResNet50"],
)
def test_networks_for_images(make, size, left):
    model = with_dead_channels(make())
    x = np.random.default_rng(1).standard_normal((4, size, size, 3)).astype("float32")
    found = shrink(model, x)
    assert_equal_predictions(model, found.model, x)
    reasons = {why for reasons in found.left.values() for why in reasons}
    assert all(any(part in why for part in left) or LAST in why for why in reasons)
    assert found.units_removed > 500
    assert found.parameters[1] < 0.75 * found.parameters[0]
