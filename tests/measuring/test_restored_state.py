"""A measurement puts back every variable that its pass changes, whatever holds it."""

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe, diagnose, measure
from relu_probe.measuring import inference, measurer

K, L = tf.keras, tf.keras.layers
KERAS3 = hasattr(K, "ops")
X = np.random.default_rng(0).standard_normal((16, 3)).astype("f")
Y = np.ones((16, 1), "f")
OUTSIDE = tf.Variable(0.0)


class Holder:
    def __init__(self):
        self.kept = {"a": [tf.Variable(0.0)]}


class Trains(L.Layer):
    """Moves statistics, a kernel and raw variables in inference mode."""

    def __init__(self):
        super().__init__(name="trains")
        self.hidden, self.norm = L.Dense(4, "relu", name="hidden"), L.BatchNormalization()
        self.spectral = L.SpectralNormalization(L.Dense(4))
        self.raw, self.holder = tf.Variable(0.0, trainable=False), Holder()

    def call(self, t):
        self.raw.assign_add(1.0)
        self.holder.kept["a"][0].assign_add(1.0)
        return self.norm(self.spectral(self.hidden(t), training=True), training=True)


def variables(model):
    layer = model.layers[0]
    values = [*model.weights, layer.raw, layer.holder.kept["a"][0]]
    return [np.array(tf.convert_to_tensor(v)) for v in values]


def net(**compile_args):
    # Power iteration only moves a kernel of more than one row and column.
    K.utils.set_random_seed(1)
    return sequential(3, Trains(), L.Dense(1), **compile_args)


WAYS = {
    "measure": lambda model: measure(model, (X, Y), batch_size=8),
    "activations only": lambda model: measure(model, X),
    "data=": lambda model: model.fit(
        X, Y, verbose=0, steps_per_epoch=1, callbacks=[ReluProbe(data=(X, Y), strict=True)]
    ),
    "diagnose": lambda model: diagnose(model, (X, Y)),
}
HOW = {"graph": {}, "eager": {"run_eagerly": True}, "XLA": {"jit_compile": True}}


@pytest.mark.parametrize(("way", "how"), [*((way, "graph") for way in WAYS), ("measure", "eager"), ("measure", "XLA")])
def test_everything_that_a_pass_changes_is_put_back(way, how):
    model = net(**HOW[how])
    before = variables(model)
    if way == "data=":  # against a fit without a probe
        other = net(**HOW[how])
        other.fit(X, Y, verbose=0, steps_per_epoch=1)
        before = variables(other)
    WAYS[way](model)
    for value, expected in zip(variables(model), before):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.once
def test_the_comparison_rejects_a_pass_that_is_not_put_back(monkeypatch):
    monkeypatch.setattr(inference, "assigned_handles", lambda graph: [])
    with pytest.raises(AssertionError):
        test_everything_that_a_pass_changes_is_put_back("measure", "graph")


def test_a_variable_that_nothing_of_the_model_holds():
    model = sequential(3, L.Lambda(lambda t: t + 0 * OUTSIDE.assign_add(1.0)), L.Dense(4, "relu"), L.Dense(1))
    before = OUTSIDE.numpy()
    measure(model, (X, Y))
    assert OUTSIDE.numpy() == before


def test_trained_weights_are_not_copied(monkeypatch):
    """Only what the step assigns to: a copy of all weights would double the memory."""
    handles = []
    found = inference.assigned_handles
    monkeypatch.setattr(inference, "assigned_handles", lambda graph: handles.extend(found(graph)) or found(graph))
    model = sequential(3, L.Dense(4, "relu"), L.Dropout(0.5), L.Dense(1))
    measure(model, X)
    own = measurer.Measurer(model).counters  # no variables yet
    assert own.variables() == []
    assert not {id(w.handle if isinstance(w, tf.Variable) else w.value.handle) for w in model.trainable_weights} & {
        id(handle) for handle, _ in handles
    }
    assert handles


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("eagerly", [False, True])
def test_random_states_are_put_back(eagerly, seed):
    class Noisy(L.Layer):
        def call(self, t):
            return t + np.random.normal() + tf.random.normal([3], seed=seed)

    model = sequential(3, Noisy(), L.Dense(4, "relu"), L.Dense(1), run_eagerly=eagerly)
    drawn = []
    for measured in (False, True):
        K.utils.set_random_seed(1)
        if measured:
            measure(model, (X, Y))
        drawn.append([np.random.random(), *tf.random.normal([2]).numpy(), *tf.random.normal([3], seed=seed).numpy()])
    assert drawn[0] == drawn[1]
