"""`revive` over the zoo: which neurons come back, no prediction changes, `undo` restores all bits."""

import numpy as np
import pytest
import tensorflow as tf
import zoo

from relu_probe import measure, revive

K, L = tf.keras, tf.keras.layers
OWN_CODE = "stands in code of your own, which may use its weights elsewhere"
# The layers of a row whose dead neuron is left, and how the reason ends. All others revive it.
LEFT = {
    **{name: {"*": OWN_CODE} for name in ("subclassed", "gan", "teacher_and_student", "custom_layer")},
    **{name: {"*": OWN_CODE} for name in ("time_distributed", "time_distributed_model")},
    "masked": {
        "hidden": "goes to global_average_pooling1d (GlobalAveragePooling1D), in which its weights are not told apart"
    },
    "shared": {"shared": "goes to subtract (Subtract), in which its weights are not told apart"},
    "frozen": {"frozen": "frozen is frozen"},
}


def outputs(model, x):
    return [np.asarray(output) for output in tf.nest.flatten(model(tf.nest.map_structure(tf.constant, x)))]


@pytest.mark.parametrize("name", zoo.rows())
def test_every_structure(name):
    row = zoo.rows()[name]
    model, x, y = zoo.killed(row), row.x(), row.y()
    before, weights, dead = outputs(model, x), model.get_weights(), measure(model, x)
    revival = revive(model, (x, y), min_rate=0.5, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(before, outputs(model, x)))
    after = measure(model, x)
    for key in dead:
        left = [why for pattern, why in LEFT.get(name, {}).items() if pattern in ("*", key)]
        reasons = [why for why in revival.layers[key].left if "blocked" not in why] if key in revival.layers else []
        if left and dead[key].dead.any():
            assert [why.endswith(left[0]) for why in reasons] == [True]
            assert np.array_equal(after[key].dead, dead[key].dead)
        else:
            assert reasons == []
            assert not after[key].dead.any()
    assert revival.revived == 0 or any(not np.array_equal(a, b) for a, b in zip(weights, model.get_weights()))
    assert f"Revival: {revival.revived} neuron" in str(revival)
    revival.undo()
    assert [a.tobytes() for a in weights] == [a.tobytes() for a in model.get_weights()]
