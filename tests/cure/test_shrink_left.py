"""What `shrink` leaves in the model, and says why, and the models that it refuses."""

import re

import numpy as np
import pytest
import tensorflow as tf
from models import sequential
from shrink_models import data, dead, left, low, model_of, outputs, randomized, removed, shrunk

from relu_probe import shrink

K, L = tf.keras, tf.keras.layers


def residual():
    x = K.Input((5,))
    a = dead(L.Dense, 5, name="a")(x)
    return K.Model(x, L.Dense(1)(L.Add(name="add")([x, a])))


def two_calls():
    x = K.Input((5,))
    first, behind = dead(L.Dense, 5, name="a"), L.Dense(2, name="behind")
    return K.Model(x, L.Add()([behind(first(x)), behind(x)]))


def before_the_relu():
    x = K.Input((5,))
    z = L.Dense(4, bias_initializer=low(4), name="z")(x)
    return K.Model(x, [L.Dense(1)(L.ReLU(name="a")(z)), L.Dense(1, name="other")(z)])


LEFT = {
    "residual": (residual, "its output goes to add (Add), whose input cannot be made smaller"),
    "output": (lambda: sequential((5,), dead(L.Dense, 4, name="a")), "it is part of an output of the model"),
    "mixed": (
        lambda: model_of((5,), dead(L.Dense, 4, name="a"), L.LayerNormalization(name="norm")),
        "its output goes to norm (LayerNormalization), whose input cannot be made smaller",
    ),
    "reshaped": (
        lambda: model_of((5,), dead(L.Dense, 4, name="a"), L.Reshape((2, 2), name="square")),
        "its output goes to square (Reshape), whose input cannot be made smaller",
    ),
    "padded": (
        lambda: model_of(
            (5, 5), dead(L.Conv1D, 4, 1, name="a"), L.BatchNormalization(), L.Conv1D(2, 3, padding="same", name="next")
        ),
        "it leaves a constant behind, which cannot be moved into next: it pads its input with zeros",
    ),
    "zero padding": (
        lambda: model_of((5, 5), dead(L.Conv1D, 4, 1, name="a"), L.BatchNormalization(), L.ZeroPadding1D(name="pad")),
        "pad pads the constant that it leaves behind with zeros",
    ),
    "no bias": (
        lambda: model_of(
            (5, 5), dead(L.Conv1D, 4, 1, name="a"), L.BatchNormalization(), L.Conv1D(2, 3, use_bias=False, name="next")
        ),
        "it leaves a constant behind, which cannot be moved into next: it has no bias",
    ),
    "called twice": (two_calls, "behind is also called on something else"),
    "before the ReLU": (before_the_relu, "other also receives it where it is not constant"),
    "input": (
        lambda: model_of((5, 5), L.DepthwiseConv1D(2, activation="relu", bias_initializer=low(5), name="a")),
        "its input is not the output of one linear layer alone",
    ),
    "groups": (
        lambda: model_of((5, 4), dead(L.Conv1D, 4, 1, name="a"), L.Conv1D(2, 1, groups=2, name="grouped")),
        "its output goes to grouped (Conv1D), whose input cannot be made smaller",
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_be_removed_is_left_by_name(name):
    make, why = LEFT[name]
    model = randomized(make())
    if name in ("padded", "zero padding", "no bias"):  # an untrained BatchNormalization turns 0 into 0
        assert model.layers[1].name.startswith("batch_norm")
    found = shrunk(model, data(*model.inputs[0].shape[1:]))
    assert found.removed == {}
    assert left(found) == {"a": [why]}
    assert found.left["a"][why].tolist() == [1]
    assert f"a: 1 left: {why}." in re.sub(r"\s+", " ", str(found))


def test_a_layer_keeps_one_unit_whose_outgoing_weights_are_zero():
    model = model_of((5,), dead(L.Dense, 3, name="a", neurons=(0, 1, 2)))
    found = shrunk(model, data(5))
    assert removed(found) == {"a": [1, 2]}
    why = "it stays, because its layer keeps at least one unit; the weights behind it are zero now"
    assert left(found) == {"a": [why]}
    assert not np.any(found.model.get_layer("out").kernel)
    other = data(5) * 1000  # where the neurons fire
    assert np.ptp(outputs(found.model, other)[0]) == 0
    assert np.ptp(outputs(model, other)[0]) > 0


def test_only_the_selected_layers():
    model = model_of((5,), dead(L.Dense, 4, name="a"), dead(L.Dense, 3, name="b"))
    assert removed(shrunk(model, data(5), layers="b")) == {"b": [1]}
    assert removed(shrunk(model, data(5))) == {"a": [1], "b": [1]}


class Own(K.Model):
    def __init__(self, **more):
        super().__init__(**more)
        self.hidden = L.Dense(3, "relu")

    def call(self, x):
        return self.hidden(x)


ERRORS = {
    "subclassed": (lambda: Own(name="mine"), {}, r"model 'mine' is a Own, a subclassed model, whose code may use"),
    "remove": (residual, {"remove": "all"}, r"remove is 'all'; expected \"dead\" or \"certified\"\."),
    "no bounds": (residual, {"remove": "certified"}, r"remove is 'certified' without bounds; expected remove="),
    "bounds": (residual, {"bounds": (0, 1)}, r"remove is 'dead' with bounds; expected remove="),
    "narrow": (residual, {"bounds": (0, 1), "remove": "certified"}, r"The data reaches from -.* outside of the bounds"),
    "layers": (residual, {"layers": "z"}, r"layers='z' matches no layer of the model"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_was_found_and_expected(name):
    make, options, match = ERRORS[name]
    model = make()
    model(data(5))
    with pytest.raises(ValueError, match=match):
        shrink(model, data(5), **options)


class OwnDense(L.Dense):
    """A subclass of the user's, which may do anything."""


def test_a_layer_of_the_users_own_is_left_by_name():
    mine = OwnDense(4, "relu", bias_initializer=low(4), name="mine")
    found = shrunk(model_of((5,), dead(L.Dense, 4, name="a"), mine), data(5))
    assert left(found) == {
        "a": ["its output goes to mine (OwnDense), whose input cannot be made smaller"],
        "mine": ["its layer is of an unknown kind, or is called inside another layer"],
    }


class NoConfig(L.Layer):
    def call(self, x):
        return x * 2.0

    def get_config(self):
        raise NotImplementedError("no configuration")


def test_a_layer_that_cannot_be_made_again_is_named():
    model = model_of((5,), dead(L.Dense, 4), NoConfig(name="mine"))
    with pytest.raises(
        ValueError, match=r"layer mine \(NoConfig\) cannot be made again from its configuration: no conf"
    ):
        shrink(model, data(5))


class OwnSequential(K.Sequential):
    """A class of the user's, perhaps with a training step of its own."""


def test_a_class_of_the_users_own_is_refused_by_name():
    model = OwnSequential([K.Input((5,)), dead(L.Dense, 4), L.Dense(1)])
    with pytest.raises(ValueError, match=r"the model is a OwnSequential, a class of your own, of which no smaller one"):
        shrink(model, data(5))


def test_functions_of_the_users_need_not_be_registered():
    def shifted_relu(z):
        return tf.nn.relu(z - 1.0)

    model = model_of((5,), L.Dense(4, shifted_relu, bias_initializer=low(4), name="a"), L.Lambda(lambda h: h * 2.0))
    found = shrunk(model, data(5))
    assert "lambda" in left(found)["a"][0]
