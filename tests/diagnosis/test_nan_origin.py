"""Where the NaN of a training come from: the data, the model, the loss, or weights that blew up."""

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe, diagnose

K, L = tf.keras, tf.keras.layers
X, Y = np.array([[1, 2], [3, 4]], np.float32), np.full((2, 1), 0.5, np.float32)


def trained(x, *layers, loss="mse"):
    """The advice after a training, by kind."""
    model = sequential(2, *layers, L.Dense(2, "relu", name="hidden"), L.Dense(1))
    model.compile("sgd", loss)
    probe = ReluProbe()
    model.fit(x, Y, verbose=0, callbacks=[probe])
    return {each.kind: each.text for each in diagnose(model, (x, Y), probe=probe).advice}


def test_a_nan_that_reaches_the_first_weights_is_traced_to_what_stands_before_them():
    """The first update spreads it over all weights; and a ReLU may return 0 for a NaN, so that the loss stays finite."""
    advice = trained(X * 0, L.Rescaling(np.inf))
    assert list(advice) == ["nan_arithmetic", "nan_weights"]
    assert advice["nan_arithmetic"].startswith(
        "The data is finite, and what arrives at hidden, the first layer with weights, is not."
    )


def test_a_nan_of_the_loss_is_there_before_the_first_update():
    advice = trained(X, loss=lambda y, p: (p - p) / (p - p))
    assert list(advice) == ["nan_arithmetic", "nan_weights"]
    assert advice["nan_arithmetic"].startswith("The loss of the very first step was not finite")


def test_a_nan_of_the_data_is_not_blamed_on_the_model():
    assert list(trained(X * np.nan)) == ["nan_data", "nan_weights"]


@pytest.mark.parametrize("lost", [np.inf, np.nan])
def test_a_target_that_is_not_finite_makes_the_targets_not_large(lost):
    """The planted mistake, "their root mean square is inf", calls for standardised targets, which infinity does not allow."""
    model = sequential(2, L.Dense(2, "relu"), L.Dense(1))
    model.layers[0].set_weights([np.ones((2, 2)), np.full(2, -99)])
    large, lost = (diagnose(model, (X, np.array([[20], [target]]))) for target in (30, lost))
    assert [each.kind == "targets" for each in large.advice].count(True) == 1
    assert "targets" not in [each.kind for each in lost.advice]
    assert "inf" not in str(lost)
    assert np.isnan(lost.target_size)
