"""ReLUs in the cells of RNN layers, however they are written: counted as in the plain spelling, selected, or named."""

import numpy as np
import pytest
import tensorflow as tf
from models import OwnCell, sequential

from relu_probe import ReluProbe, measure

K, L = tf.keras, tf.keras.layers
STEPS = 5
X = np.random.default_rng(0).standard_normal((8, STEPS, 3)).astype("f")
Y = np.random.default_rng(1).standard_normal((8, 1)).astype("f")


def stacked(rnn, **options):
    return sequential((STEPS, 3), rnn, L.Dense(4, "relu", name="seen"), L.Dense(1), **options)


def fitted(model, **options):
    model.fit(X, Y, verbose=0, callbacks=[probe := ReluProbe(strict=True, **options)])
    return probe.report


class ByHand(K.Model):
    """Calls a cell in a loop of its own."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.seen, self.out = cell, L.Dense(4, "relu", name="seen"), L.Dense(1)

    def call(self, x):
        states = [tf.zeros((tf.shape(x)[0], size)) for size in tf.nest.flatten(self.cell.state_size)]
        for t in range(STEPS):
            output, states = self.cell(x[:, t], states)
        return self.out(self.seen(output))


def assert_same(reports):
    """Asserts that the ReLUs of two reports have the same counts, in the same order, and that nothing is unseen."""
    first, second = reports
    assert not first.unseen
    assert not second.unseen
    assert list(first)[-1] == list(second)[-1] == "seen"
    for a, b in zip(first.values(), second.values(), strict=True):
        assert (a.positions, a.samples) == (b.positions, b.samples)
        np.testing.assert_array_equal(a.active, b.active)
        np.testing.assert_array_equal(a.with_gradient, b.with_gradient)
    assert len(first) > 1
    assert all(layer.with_gradient.any() for layer in first.values())


SPELLINGS = {
    "a layer": lambda relu: L.SimpleRNN(4, activation=relu, name="rnn"),
    "two layers": lambda relu: L.LSTM(4, activation=relu, recurrent_activation=relu, name="rnn"),
    "an unrolled layer": lambda relu: L.GRU(4, activation=relu, unroll=True, name="rnn"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_activation_layer_in_a_cell_counts_what_the_function_counts(spelling):
    models = [stacked(SPELLINGS[spelling](relu)) for relu in ("relu", L.ReLU())]
    models[1].set_weights(models[0].get_weights())
    assert_same([measure(model, (X, Y)) for model in models])
    if spelling == "a layer":
        assert_same([fitted(model) for model in models])


CELLS = {
    "SimpleRNN": lambda: L.SimpleRNNCell(4, "relu"),
    "LSTM": lambda: L.LSTMCell(4, activation=L.ReLU(), recurrent_activation="hard_sigmoid"),
    "stacked": lambda: L.StackedRNNCells([L.GRUCell(4, activation="relu"), L.SimpleRNNCell(3, "relu")]),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_in_a_loop_of_the_users_counts_what_the_rnn_layer_counts(name):
    layer = stacked(L.RNN(CELLS[name](), unroll=True))
    by_hand = ByHand(CELLS[name]())
    by_hand.compile(K.optimizers.SGD(0.0), "mse")
    by_hand(X)
    by_hand.set_weights(layer.get_weights())
    assert_same([measure(model, (X, Y)) for model in (layer, by_hand)])
    if name == "SimpleRNN":
        assert_same([fitted(model) for model in (layer, by_hand)])


class CellWithLayer(OwnCell):
    """Holds its ReLU as a layer."""

    def __init__(self, held):
        super().__init__()
        if held == "in Dense":
            self.dense.activation = L.ReLU()
        self.relu = L.ReLU(name="act") if held == "alone" else lambda t: t

    def call(self, t, states):
        a = self.relu(self.dense(t))
        return a, [a]


@pytest.mark.parametrize(("held", "key"), [("in Dense", "rnn/dense"), ("alone", "rnn/act")])
def test_an_activation_layer_in_a_cell_of_the_users_is_named(held, key):
    report = measure(stacked(L.RNN(CellWithLayer(held), name="rnn")), X)
    assert (list(report), dict(report.unseen)) == (["seen"], {key: "relu inside its cells"})


class TwoGradients(K.Sequential):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        for _ in range(2):
            tape.gradient(loss, self.trainable_variables)
        return {"loss": loss}


def test_a_step_with_two_gradients_names_an_rnn_layer_once():
    report = fitted(stacked(L.SimpleRNN(4, activation="relu", name="rnn"), kind=TwoGradients))
    assert list(report.unseen) == ["rnn/relu"]
    assert report.unseen["rnn/relu"].endswith("the step computes several, or in another function")


# --- layers= ----------------------------------------------------------------------------------------------------------


def test_an_rnn_layer_selects_the_relus_of_its_cells():
    rnn = L.LSTM(4, activation="relu", name="rnn")
    both = L.Bidirectional(L.SimpleRNN(4, activation="relu", return_sequences=True), name="both")
    model = sequential((STEPS, 3), both, rnn, L.Dense(4, "relu", name="seen"), L.Dense(1, name="out"))
    every = list(measure(model, (X, Y)))
    lstm, two = ["rnn/relu", "rnn/relu_1"], [key for key in every if key.startswith("both/")]
    assert every == [*two, *lstm, "seen"]
    assert len(two) == 2
    for wanted, keys in (
        ("rnn", lstm),
        (rnn, lstm),
        (["seen", "rnn"], [*lstm, "seen"]),
        ("both", two),
        (both, two),
        ("rnn/relu_1", lstm[1:]),
    ):
        assert list(measure(model, (X, Y), layers=wanted)) == keys
    assert list(fitted(model, layers="rnn")) == lstm
    for wanted in ("out", "relu"):
        with pytest.raises(
            ValueError, match=rf"; expected names, globs or layer objects from seen, {two[0]}, .*rnn/relu\."
        ):
            measure(model, (X, Y), layers=wanted)
