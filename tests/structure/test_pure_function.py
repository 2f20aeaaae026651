"""Recognition has no effects: nothing of the user's is called that might have some, and no random state is moved."""

import random
import types
from contextlib import nullcontext

import numpy as np
import pytest
import tensorflow as tf
from harm import assert_no_harm, fitted
from models import sequential

from relu_probe import ReluProbe, measure
from relu_probe.structure import relu_function
from relu_probe.structure.pure_function import as_pure_function
from relu_probe.structure.relu_function import is_relu
from relu_probe.structure.relu_layers import find_relus

K, L = tf.keras, tf.keras.layers
KERAS3 = hasattr(K, "ops")
X = np.random.default_rng(0).standard_normal((32, 4)).astype("f")
CALLS: list[int] = []
SLOPE = 0.0


class Activations:
    def method(self, t):
        CALLS.append(1)
        return tf.nn.relu(t)

    def __call__(self, t):
        return self.method(t)


class OwnReLU(L.ReLU):
    def call(self, t):
        CALLS.append(1)
        return super().call(t)


class OwnModel(K.Model):
    def call(self, t):
        CALLS.append(1)
        return tf.nn.relu(t)


def counted(t):
    CALLS.append(1)
    return tf.nn.relu(t)


def through_another(t):
    return counted(t)


def global_slope(t):
    global SLOPE  # noqa: PLW0603
    SLOPE += 1.0
    return tf.nn.relu(t)


def in_closure():
    calls = 0

    def function(t):
        nonlocal calls
        calls += 1
        CALLS.append(1)
        return tf.nn.relu(t)

    return function


def own_generator():
    generator = np.random.default_rng(0)
    return lambda t: tf.nn.relu(t) + 0 * generator.random()


def imports(t):
    import this  # noqa: F401

    return tf.nn.relu(t)


WITH_EFFECTS = {
    "a counter": counted,
    "a counter in another function": through_another,
    "a global variable": global_slope,
    "a variable of the enclosing function": in_closure(),
    "a generator of its own": own_generator(),
    "an import": imports,
    "a file": lambda t: open("never", "w").close() or tf.nn.relu(t),
    "an attribute": lambda t: setattr(t, "a", 1) or tf.nn.relu(t),
    "a method": Activations().method,
    "a callable object": Activations(),
    "a layer": OwnReLU(),
    "a model": OwnModel(),
    "a model of Keras's class": K.Sequential([OwnReLU()]),
}


@pytest.mark.parametrize("name", WITH_EFFECTS)
def test_what_may_have_effects_is_never_called(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CALLS.clear()
    assert not is_relu(WITH_EFFECTS[name])
    assert CALLS == []
    assert SLOPE == 0.0
    assert not list(tmp_path.iterdir())


def draws():
    """Functions that move a global generator while they are traced."""
    functions = {
        "numpy": lambda t: t + np.random.normal(0, 1, (4,)).astype("f"),
        "python": lambda t: t + random.random(),
        "tensorflow": lambda t: t + tf.random.normal([4]),
        "tensorflow's generator": lambda t: t + tf.random.get_global_generator().normal([4]),
        "keras, later": lambda t: t + 0 * K.backend.random_normal([4]) if not KERAS3 else t + K.random.normal([4]),
    }
    return functions


@pytest.mark.parametrize("name", draws())
def test_a_noisy_lambda_draws_the_same_numbers_as_without_the_probe(name):
    def trained(callbacks):
        K.backend.clear_session()  # Keras 3.3 keeps its global generator when a seed is set
        K.utils.set_random_seed(1)
        tf.random.set_global_generator(tf.random.Generator.from_seed(1))
        relu_function._recognized.clear()
        noisy = L.Lambda(draws()[name], output_shape=(4,))
        model = sequential(4, noisy, L.Dense(6, "relu"), L.Dense(1), optimizer=K.optimizers.Adam(0.01))
        return fitted(model, callbacks)

    assert_no_harm(trained, [ReluProbe(strict=True)])


@pytest.mark.once
def test_the_comparison_rejects_random_states_that_are_not_restored(monkeypatch):
    monkeypatch.setattr(relu_function, "random_states_restored", nullcontext)
    with pytest.raises(AssertionError, match="changed the training"):
        test_a_noisy_lambda_draws_the_same_numbers_as_without_the_probe("numpy")


def test_a_function_is_recognized_while_a_graph_is_traced():
    tf.random.get_global_generator()  # its state cannot be read in a graph
    relu_function._recognized.clear()
    found = []
    tf.function(lambda: found.append(is_relu(lambda t: tf.maximum(t, 0.0))), autograph=False)()
    assert found == [True]


def test_what_a_function_prints_is_swallowed(capfd):
    relu_function._recognized.clear()
    assert is_relu(lambda t: print("printed") or tf.nn.relu(t))
    assert capfd.readouterr() == ("", "")


def test_functions_bound_to_other_values_are_other_functions():
    def leaky(slope):
        return lambda t: tf.where(t > 0, t, slope * t)

    assert is_relu(leaky(0.0))
    assert not is_relu(leaky(0.1))
    assert as_pure_function(leaky(0.1)).key == as_pure_function(leaky(0.1)).key
    assert is_relu(tf.function(leaky(0.0)))
    assert not is_relu(leaky(tf.Variable(0.0)))
    assert is_relu(leaky(tf.constant(0.0)))


# --- names of attributes ----------------------------------------------------------------------------------------------


class Named(L.Layer):
    """A layer whose attributes have the names of Keras's."""

    def __init__(self, name="named", **attributes):
        super().__init__(name=name)
        self.hidden = L.Dense(4, "relu", name="hidden")
        for key, value in attributes.items():
            setattr(self, key, value)
        self.extra = attributes

    def call(self, t):
        t = self.hidden(t)
        for part in self.extra.values():
            t = part(t) if callable(part) else t
        return t


class NamedModel(K.Model):
    def __init__(self):
        super().__init__()
        self.state_size, self.operations, self.data_format = 4, [1], "channels_first"
        self.hidden, self.out = L.Dense(4, "relu", name="hidden"), L.Dense(1)

    def call(self, t):
        return self.out(self.hidden(t))


ATTRIBUTES = {
    "activation": (lambda: {"activation": L.ReLU(name="act")}, []),
    "a model as activation": (
        lambda: {"activation": K.Sequential([L.BatchNormalization(), L.ReLU(name="act")])},
        ["act"],
    ),
    "function": (lambda: {"function": L.Dense(4, "relu", name="act")}, ["act"]),
    "state_size, operations, units": (lambda: {"state_size": 4, "operations": 5, "units": 7, "stateful": True}, []),
    "quantization_mode": (lambda: {"arguments": 3, "states": 2, "symbol": "relu"}, []),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_names_of_attributes_mean_nothing(name):
    attributes, more = ATTRIBUTES[name]
    model = sequential(4, Named(**attributes()), L.Dense(1))
    found = list(measure(model, X))
    assert found[0] == "hidden"
    assert [key for key in found if key in more] == more
    if name == "activation":
        assert found == ["hidden", "act"]


def test_a_model_with_a_state_size_is_counted():
    model = NamedModel()
    model(X)
    assert list(measure(model, X)) == ["hidden"]


def test_the_layers_of_a_model_in_a_lambda_are_counted():
    inner = K.Sequential([K.Input((4,)), OwnReLU(name="own"), L.Dense(4, "relu", name="inner")])
    model = sequential(4, L.Lambda(inner, output_shape=(4,)), L.Dense(1))
    assert "inner" in [relu.key for relu in find_relus(model)]


def raising(name):
    def get(self):
        raise RuntimeError("a property of the user's")

    namespace = {name: property(get, lambda self, value: None), "call": lambda self, t: t}
    return types.new_class("Raising", (L.Layer,), exec_body=lambda body: body.update(namespace))


@pytest.mark.parametrize(
    "name",
    ["activation", "function", "state_size", "units", "filters", "data_format", "operations", "states", "stateful"],
)
def test_a_property_that_raises_is_never_read(name):
    model = sequential(4, raising(name)(), L.Dense(4, "relu", name="hidden"), L.Dense(1))
    probes = [ReluProbe(strict=True), ReluProbe(name="data", data=(X, X[:, :1]), strict=True)]
    model.fit(X, X[:, :1], verbose=0, callbacks=probes)
    assert [list(probe.report) for probe in probes] == [["hidden"], ["hidden"]]
