"""The root of a model's sickness: by what makes what sick, not by the order of the layers."""

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import diagnose

L = tf.keras.layers
X, Y = np.random.default_rng(0).normal(size=(32, 4)).astype("f"), np.ones((32, 1), "f")
ALIVE = {"kernel_initializer": tf.keras.initializers.RandomUniform(0.01, 0.3, seed=1)}


def net(*widths, dead=(), some=()):
    """Layers `hidden0`, ...; those in `dead` are dead as a whole, those in `some` have one dead neuron."""
    hidden = [L.Dense(width, "relu", name=f"hidden{i}", **ALIVE) for i, width in enumerate(widths)]
    model = sequential(4, *hidden, L.Dense(1, **ALIVE))
    for i in (*dead, *some):
        kernel, bias = hidden[i].get_weights()
        bias[: None if i in dead else 1] = -999
        hidden[i].set_weights([kernel, bias])
    return model


@pytest.mark.parametrize(
    ("model", "root"),
    [
        ({"widths": (4, 4, 4)}, None),
        ({"widths": (8, 3, 8), "dead": (1,)}, "hidden1"),  # what is before it is blocked, what is behind gets zeros
        ({"widths": (8, 3, 8), "dead": (1,), "some": (0,)}, "hidden1"),  # a few dead neurons before it
        ({"widths": (8, 8, 3), "dead": (2,), "some": (0, 1)}, "hidden2"),
        ({"widths": (3, 8, 8), "dead": (0,)}, "hidden0"),
        ({"widths": (4, 4), "some": (0, 1)}, "hidden0"),  # equally many: the earlier one
        ({"widths": (4, 4, 4, 4), "dead": (1, 3)}, "hidden1"),
    ],
)
def test_the_root_explains_the_most_sick_neurons(model, root):
    widths = model.pop("widths")
    found = diagnose(net(*widths, **model), (X, Y))
    assert found.first_sick_layer == root
    if root:
        assert f"The root is {root}." in " ".join(str(found).split())
        assert found.advice[0].layers[0] == root


def test_followers_of_another_layers_death_are_one_line_without_advice():
    found = diagnose(net(6, 3, 5, 5, dead=(1,)), (X, Y))
    text = " ".join(str(found).split())
    assert {name for advice in found.advice for name in advice.layers} == {"hidden1"}
    assert "hidden2 and hidden3: their inputs died with" not in text  # each follows the layer before it
    assert "hidden2: its inputs died with hidden1." in text
    assert "hidden0: blocked, because what it feeds (hidden1) is." in text


def test_a_path_that_a_later_layer_lacks_is_its_matter():
    x = tf.keras.Input((4,))
    y = L.Dense(3, "relu", name="b", **ALIVE)(L.Dense(3, "relu", name="a", **ALIVE)(x))
    model = tf.keras.Model(x, L.Dense(1)(L.Lambda(tf.stop_gradient)(y)))
    model.compile("sgd", "mse")
    found = diagnose(model, (X, Y))
    assert found.first_sick_layer == "b"
    assert [(advice.kind, advice.layers) for advice in found.advice] == [("no_path", ("b", "a"))]
