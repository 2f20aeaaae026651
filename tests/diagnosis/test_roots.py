"""The root of a model's sickness: by what makes what sick, not by the order of the layers."""

import numpy as np
import pytest
import tensorflow as tf
from models import OwnCell, sequential

from relu_probe import diagnose

L = tf.keras.layers
constant = tf.keras.initializers.Constant
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


class Block(L.Layer):
    """Holds a ReLU that is written as a function."""

    def __init__(self, bias, **options):
        super().__init__(**options)
        self.dense = L.Dense(4, bias_initializer=tf.keras.initializers.Constant(bias))

    def call(self, x):
        return tf.nn.relu(self.dense(x))


@pytest.mark.parametrize(
    ("layers", "root"),
    [
        ([Block(-99.0, name="block")], "block/relu"),
        ([L.Reshape((2, 2)), L.SimpleRNN(4, "relu", bias_initializer=constant(-99.0), name="rnn")], "rnn/relu"),
        ([L.Dense(3, "relu", name="before", **ALIVE), Block(-99.0, name="block")], "block/relu"),
    ],
)
def test_what_gets_only_zeros_from_a_dead_function_died_with_it(layers, root):
    model = sequential(4, *layers, L.Dense(12, "relu", name="behind"), L.Dense(1))
    found = diagnose(model, (np.abs(X), Y))
    assert found.first_sick_layer == root
    assert found.layers["behind"].cause.tolist() == ["input"] * 12
    assert f"behind: its inputs died with {root}." in str(found)
    assert {name for advice in found.advice for name in advice.layers} == {root}


class Functions(tf.keras.Model):
    """A ReLU that is written as a function of the model's own, of which it is not known what it feeds."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = L.Dense(2), L.Dense(4, "relu", name="second"), L.Dense(1)

    def call(self, x):
        return self.out(self.second(tf.nn.relu(self.first(x) - 99)))


@pytest.mark.once
def test_a_dead_relu_of_unknown_place_is_named_where_only_zeros_arrive():
    model = Functions()
    model(X)
    model.compile("sgd", "mse")
    text = " ".join(str(diagnose(model, (X, Y))).split())
    assert "no ReLU explains it of those that are known to be before; relu may" in text
    zeros = diagnose(sequential(4, L.Dense(4, "relu"), L.Dense(1)), (X * 0, Y))
    assert "Nothing but zeros reaches 4 neurons, and no ReLU before explains it." in " ".join(str(zeros).split())


@pytest.mark.once
def test_relus_that_are_not_counted_are_named_where_only_zeros_arrive():
    x = tf.keras.Input((3, 2))
    y = L.Dense(3, "relu", name="behind")(L.Rescaling(0.0)(L.RNN(OwnCell(), name="rnn")(x)))
    model = tf.keras.Model(x, L.Dense(1)(y))
    assert "; rnn may, of which" in " ".join(str(diagnose(model, np.ones((4, 3, 2), "f"))).split())


def disjoint(some=()):
    """The neurons of `first` fire on the first sample only, and the units of `second` on all others."""
    names, widths = ("first", "second", "third"), (4, 2, 4)
    hidden = [L.Dense(n, "relu", name=name, **ALIVE) for name, n in zip(names, widths)]
    model = sequential(1, *hidden, L.Dense(1, **ALIVE))
    hidden[0].set_weights([np.ones((1, 4)), np.full(4, -0.5)])
    hidden[1].set_weights([np.full((4, 2), -2.0), np.full(2, 0.5)])
    bias = np.zeros(4)
    bias[list(some)] = -99
    hidden[2].set_weights([hidden[2].get_weights()[0], bias])
    return diagnose(model, (np.array([[1.0], [0], [0], [0]], "f"), np.ones((4, 1), "f")))


@pytest.mark.once
def test_what_is_blocked_by_living_units_is_no_root_where_another_layer_is_sick():
    assert disjoint().layers["first"].cause.tolist() == ["disjoint"] * 4
    assert (disjoint().first_sick_layer, [each.kind for each in disjoint().advice]) == ("first", ["general"])
    assert disjoint(some=[2]).first_sick_layer == "third"


def images(nested):
    """A dead convolution behind an input of floats, in a model of its own where `nested`."""
    convolution = L.Conv2D(
        3, 3, activation="relu", bias_initializer=constant([-9e4, 0.1, 0.1]), name="hidden0", **ALIVE
    )
    inner = [convolution, L.Flatten(), L.Dense(2, "relu", name="hidden1", **ALIVE)]
    if nested:
        inner = [tf.keras.Sequential([tf.keras.Input((5, 5, 2)), *inner])]
    return sequential((5, 5, 2), *inner, L.Dense(1, **ALIVE))


@pytest.mark.parametrize("nested", [False, True])
def test_pixels_that_keras_casts_are_diagnosed_as_floats_are(nested):
    model, x = images(nested), np.random.default_rng(0).integers(0, 256, (32, 5, 5, 2))
    found, expected = (diagnose(model, (x.astype(kind), Y)) for kind in ("uint8", "float32"))
    assert expected.layers["hidden0"].feeds == ("hidden1",)
    for key, layer in expected.layers.items():
        assert found.layers[key].feeds == layer.feeds
        assert found.layers[key].cause.tolist() == layer.cause.tolist()
        assert np.array_equal(found.layers[key].margin, layer.margin, equal_nan=True)
    assert str(found) == str(expected)
