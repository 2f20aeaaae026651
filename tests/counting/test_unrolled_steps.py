"""Steps that Keras runs together, in one graph without a loop in Keras 3.3: counting must not change the last one."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from harm import assert_no_harm, fitted

from relu_probe import ReluProbe
from relu_probe.counting.activation_sums import LARGE_SAMPLE

K, L = tf.keras, tf.keras.layers


def wide():
    return K.Input((3,)), [L.Dense(LARGE_SAMPLE + 1, "relu"), L.Dense(5, "relu")]


def large_images():
    """More than `FEW_LAYERS` layers, which are counted in function calls."""
    return K.Input((40, 40, 3)), [*(L.Conv2D(12, 3, padding="same", activation="relu") for _ in range(10)), L.Flatten()]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # of Keras 3.3, which expects a multiple of the steps
@pytest.mark.parametrize("activation_sum", [False, True])
@pytest.mark.parametrize("layers", [wide, large_images])
def test_steps_that_are_run_together_do_not_change_the_last_one(layers, activation_sum):
    """Where Keras unrolls the steps, the end of the data ends the graph, and loops of ours would still run in the last step."""
    probe = ReluProbe(strict=True, activation_sum=activation_sum)

    def train(callbacks):
        K.utils.set_random_seed(3)
        inputs, hidden = layers()
        model = K.Sequential([inputs, *hidden, L.Dense(1)])
        model.compile(K.optimizers.Adam(0.01), "mse", steps_per_execution=2)
        x = np.random.default_rng(0).standard_normal((11, *inputs.shape[1:])).astype("float32")
        return fitted(model, callbacks, x, np.ones((11, 1)), batch_size=4, shuffle=False)

    assert_no_harm(train, [probe])
    assert {layer.samples for layer in probe.report.values()} == {11}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_recurrent_layers_in_steps_that_are_run_together():
    """They are counted inside of their own loops; where Keras unrolls the steps, they are not counted."""
    probe = ReluProbe(verbose=0)

    def train(callbacks):
        K.utils.set_random_seed(3)
        layers = [L.SimpleRNN(8, activation="relu", name="rnn"), L.Dense(4, "relu", name="hidden"), L.Dense(1)]
        model = K.Sequential([K.Input((6, 3)), *layers])
        model.compile(K.optimizers.Adam(0.01), "mse", steps_per_execution=2)
        x = np.random.default_rng(0).standard_normal((11, 6, 3)).astype("float32")
        return fitted(model, callbacks, x, np.ones((11, 1)), batch_size=4, shuffle=False)

    with warnings.catch_warnings(record=True):
        assert_no_harm(train, [probe])
    assert probe.report["hidden"].samples == 11
    if getattr(K, "__version__", "").startswith("3.3."):
        assert "use a newer Keras, or steps_per_execution=1" in probe.report.unseen["rnn"]
    else:
        assert probe.report["rnn/relu"].samples == 11
