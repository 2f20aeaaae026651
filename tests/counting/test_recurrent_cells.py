"""ReLUs in the cells of RNN layers, counted in the loop over the time steps, against a loop in Python that NumPy counts."""

import function_oracle
import harm
import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe, measure

K, L = tf.keras, tf.keras.layers
STEPS, UNITS = 5, 4
X = np.random.default_rng(0).standard_normal((8, STEPS, 3)).astype("f")
Y = np.random.default_rng(1).standard_normal((8, 1)).astype("f")
KEYS = {"SimpleRNN": ["rnn/relu"], "GRU": ["rnn/relu"], "LSTM": ["rnn/relu", "rnn/relu_1"]}


def recurrent(kind, rate=0.0, **compile_args):
    """Returns a model with a dead neuron, and with one whose output nothing reads in the last time step."""
    K.utils.set_random_seed(3)
    model = sequential((STEPS, 3), getattr(L, kind)(UNITS, activation="relu", name="rnn"), L.Dense(1, name="out"))
    *others, bias = model.get_layer("rnn").get_weights()
    bias.reshape(-1, UNITS)[:, 0] = -30.0
    model.get_layer("rnn").set_weights([*others, bias])
    kernel, out_bias = model.get_layer("out").get_weights()
    kernel[1] = 0.0
    model.get_layer("out").set_weights([kernel, out_bias])
    model.compile(K.optimizers.Adam(rate) if rate else K.optimizers.SGD(0.0), "mse", **compile_args)
    return model


def brute_force(model, keys):
    """The counts of one forward and backward pass, by a loop over the time steps in Python."""
    cell, out = model.get_layer("rnn").cell, model.get_layer("out")
    with tf.GradientTape() as tape, function_oracle.recorded(tape) as runs:
        states = [tf.zeros((len(X), UNITS)) for _ in tf.nest.flatten(cell.state_size)]
        for t in range(STEPS):
            output, states = cell(tf.constant(X[:, t]), states)
        loss = tf.reduce_mean((out(output) - Y) ** 2)
    gradients = [
        np.zeros(r.output.shape) if g is None else np.asarray(g)
        for r, g in zip(runs, tape.gradient(loss, [r.output for r in runs]))
    ]
    expected = {}
    for i, key in enumerate(keys):
        a = np.concatenate([run.output for run in runs[i :: len(keys)]])
        g = np.concatenate(gradients[i :: len(keys)])
        passes = function_oracle.passes(a, g, np.zeros(a.shape, bool))
        expected[key] = {"positions": len(a), "active": (a > 0).sum(0), "with_gradient": passes.sum(0)}
    return expected


@pytest.mark.parametrize("kind", KEYS)
def test_measured_cells_agree_with_brute_force(kind):
    model = recurrent(kind)
    report = measure(model, (X, Y), batch_size=3)
    function_oracle.assert_counted(report, brute_force(model, KEYS[kind]))
    assert (report.samples, dict(report.unseen)) == (len(X), {})
    assert report["rnn/relu"].dead[0]
    if kind == "SimpleRNN":
        assert measure(model, X)["rnn/relu"].with_gradient is None


@pytest.mark.parametrize(("kind", "jit"), [("SimpleRNN", False), ("GRU", False), ("LSTM", False), ("LSTM", True)])
def test_trained_cells_agree_with_brute_force(kind, jit):
    model = recurrent(kind, jit_compile=jit)
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[probe := ReluProbe(strict=True)])
    function_oracle.assert_counted(probe.report, brute_force(model, KEYS[kind]))
    assert (probe.report.samples, dict(probe.report.unseen)) == (len(X), {})
    last = probe.report["rnn/relu"].last_active
    assert last[0] == -1
    assert last.max() == 3


@pytest.mark.once
@pytest.mark.parametrize("mistake", ["dL/da for dL/dz", "a time step left out"])
def test_a_wrong_count_is_found(mistake, monkeypatch):
    model = recurrent("SimpleRNN")
    report, expected = measure(model, (X, Y)), brute_force(model, ["rnn/relu"])
    function_oracle.assert_counted(report, expected)
    if mistake == "a time step left out":
        monkeypatch.setattr(np, "concatenate", lambda parts, whole=np.concatenate: whole(parts[:-1]))
    else:
        monkeypatch.setattr(function_oracle, "passes", lambda a, gradient, stopped: gradient != 0)
    with pytest.raises(AssertionError):
        function_oracle.assert_counted(report, brute_force(model, ["rnn/relu"]))


@pytest.mark.parametrize(
    ("kind", "jit", "policy"),
    [("LSTM", False, "float32"), ("SimpleRNN", True, "float32"), ("GRU", False, "mixed_float16")],
)
def test_a_training_is_bit_identical(kind, jit, policy):
    before = K.mixed_precision.global_policy()
    K.mixed_precision.set_global_policy(policy)
    try:
        left = []
        for callbacks in ([], [ReluProbe(strict=True)]):
            model = recurrent(kind, 0.01, jit_compile=jit)
            left.append(harm.fitted(model, callbacks, X, Y, batch_size=3))
            assert harm.clean(model)
            assert model.get_layer("rnn").cell.activation is K.activations.get("relu")
    finally:
        K.mixed_precision.set_global_policy(before)
    assert harm.same(*left)
    assert dict(callbacks[0].report.unseen) == {}


# --- other layers -----------------------------------------------------------------------------------------------------


def unrolled(layer):
    """The same layer without a loop, whose ReLUs are operations of the step."""
    config = layer.get_config()
    return type(layer).from_config(config | {"unroll": True})


@pytest.mark.parametrize(
    ("layer", "count"),
    [
        (lambda: L.LSTM(4, activation="relu", recurrent_activation="relu", name="rnn"), 5),
        (lambda: L.RNN([L.SimpleRNNCell(4, "relu"), L.GRUCell(3, "relu")], name="rnn"), 2),
        (lambda: L.GRU(4, activation=tf.nn.relu6, return_sequences=True, go_backwards=True, name="rnn"), 1),
    ],
)
def test_a_loop_counts_what_the_unrolled_layer_counts(layer, count):
    looped = sequential((STEPS, 3), rnn := layer(), L.Dense(1))
    other = sequential((STEPS, 3), unrolled(rnn), L.Dense(1))
    other.set_weights(looped.get_weights())
    a, b = (measure(model, (X, np.ones(model(X).shape, "f"))) for model in (looped, other))
    assert len(a) == count
    assert all(a[key].positions == len(X) * STEPS and a[key].samples == len(X) for key in a)
    for name in ("active", "with_gradient", "nan"):
        assert all((getattr(a[key], name) == getattr(b[key], name)).all() for key in b)


def test_both_directions_and_masked_steps_are_counted():
    masked = X.copy()
    masked[:, 3:] = 0.0
    model = sequential(
        (STEPS, 3), L.Masking(), L.Bidirectional(L.SimpleRNN(4, activation="relu"), name="both"), L.Dense(1)
    )
    report = measure(model, (masked, Y))
    assert (len(report), dict(report.unseen)) == (2, {})
    assert all(layer.positions == len(X) * STEPS for layer in report.layers.values())


def test_the_channels_of_a_convolutional_cell_are_its_neurons():
    model = sequential((3, 5, 6, 2), L.ConvLSTM2D(4, 2, activation="relu", name="rnn"), L.Flatten(), L.Dense(1))
    report = measure(model, (np.random.default_rng(0).standard_normal((4, 3, 5, 6, 2)).astype("f"), Y[:4]))
    assert list(report) == ["rnn/relu", "rnn/relu_1"]
    assert all(layer.positions == 4 * 3 * 4 * 5 for layer in report.layers.values())
    assert all(layer.neurons == 4 for layer in report.layers.values())
    assert (report["rnn/relu"].with_gradient > 0).any()


# --- frozen cells, arguments, builds ----------------------------------------------------------------------------------


def trained(model):
    model.compile(K.optimizers.SGD(0.0), "mse")
    model.fit(X, Y, verbose=0, callbacks=[probe := ReluProbe(strict=True)])
    return probe.report


def behind_a_state(rnn):
    inputs = K.Input((STEPS, 3))
    state = L.Dense(UNITS)(L.Flatten()(inputs))
    return K.Model(inputs, L.Dense(1)(rnn(inputs, initial_state=[state])))


def stacked(rnn):
    return sequential((STEPS, 3), rnn, L.Dense(1))


def stack_with_frozen(place):
    cells = [L.GRUCell(UNITS, activation="relu"), L.SimpleRNNCell(3, activation="relu")]
    cells[place].trainable = False
    return L.RNN(cells, name="rnn")


def frozen(**options):
    return L.GRU(UNITS, activation="relu", name="rnn", trainable=False, **options)


@pytest.mark.parametrize(
    ("layer", "build"),
    [(frozen, behind_a_state), (lambda: stack_with_frozen(1), stacked)],
    ids=["a trainable state", "a trainable cell before"],
)
def test_a_frozen_cell_through_which_a_gradient_flows_is_counted(layer, build):
    looped = build(rnn := layer())
    other = rnn.from_config({**rnn.get_config(), "unroll": True})
    if isinstance(rnn.cell, L.StackedRNNCells):
        other.cell.cells[1].trainable = False
    other = build(other)
    other.set_weights(looped.get_weights())
    a, b = trained(looped), trained(other)
    for key in b:
        np.testing.assert_array_equal(a[key].with_gradient, b[key].with_gradient)
        assert a[key].with_gradient.any()


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("layer", [frozen, None], ids=["a layer", "the first cell of a stack"])
def test_a_cell_with_nothing_trainable_before_it_is_frozen(layer, unroll):
    rnn = layer(unroll=unroll) if layer else stack_with_frozen(0)
    rnn.unroll = unroll
    report = trained(stacked(rnn))
    first = report[next(iter(report))]
    assert (first.frozen, first.with_gradient) == (True, None)


def test_a_cell_that_stands_twice_in_a_stack_counts_what_the_unrolled_layer_counts():
    cell = L.SimpleRNNCell(3, activation="relu", kernel_initializer="ones")
    layers = [L.RNN([cell, cell], name="rnn", unroll=unroll, return_sequences=True) for unroll in (False, True)]
    labels = np.ones((len(X), STEPS, 1), "f")
    looped, unrolled = (list(measure(sequential((STEPS, 3), rnn, L.Dense(1)), (X, labels)).values()) for rnn in layers)
    assert sum(layer.positions for layer in looped) == 2 * len(X) * STEPS
    for name in ("active", "with_gradient"):
        a, b = (sum(getattr(layer, name) for layer in found) for found in (looped, unrolled))
        np.testing.assert_array_equal(a, b)
        assert a.any()


class ByKeyword(K.Model):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = L.GRU(UNITS, activation="relu", name="rnn"), L.Dense(1)

    def call(self, x):
        name = "sequences" if hasattr(K, "ops") else "inputs"
        return self.out(self.rnn(**{name: x}, mask=None))


def test_a_layer_that_is_called_by_keyword_and_built_in_the_fit_is_counted_and_nothing_else_named():
    report = trained(ByKeyword())
    (layer,) = report.layers.values()
    assert (layer.positions, layer.samples, dict(report.unseen)) == (len(X) * STEPS, len(X), {})


def test_a_recurrent_activation_alone_is_counted():
    report = trained(stacked(L.GRU(UNITS, activation="tanh", recurrent_activation="relu", name="rnn")))
    assert sum(layer.positions for layer in report.layers.values()) in (len(X) * STEPS, 2 * len(X) * STEPS)
