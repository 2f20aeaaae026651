"""What a step cannot count is named with its reason, and what other code runs is not counted."""

import threading

import numpy as np
import pytest
import tensorflow as tf
from models import OwnCell, sequential

from relu_probe import ReluProbe, measure, watch

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).standard_normal((32, 3)).astype("f")
Y = np.ones((32, 1), "f")
SERIES = np.random.default_rng(1).standard_normal((8, 5, 3)).astype("f")
IN_FUNCTION = "called inside a tf.function of its own, which other steps use too: remove the decorator @tf.function"


def fitted(model, x=X, y=Y, **fit_args):
    model.fit(x, y, verbose=0, callbacks=[probe := ReluProbe()], **fit_args)
    return probe.report


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("kind", "key"), [("function", "rnn"), ("layer", "rnn/dense")])
def test_a_cell_of_the_users_is_named(kind, key, masked):
    mask = [L.Masking()] if masked else []
    model = sequential((5, 3), *mask, L.RNN(OwnCell(kind), name="rnn"), L.Dense(4, "relu", name="seen"), L.Dense(1))
    for report in (fitted(model, SERIES, Y[:8]), measure(model, (SERIES, Y[:8]))):
        assert report.unseen == {key: "relu inside its cells"}
        assert list(report) == ["seen"]


def test_other_rnn_layers_are_not_named():
    model = sequential((5, 3), L.Bidirectional(L.LSTM(4)), L.Dense(4, "relu", name="seen"), L.Dense(1))
    assert fitted(model, SERIES, Y[:8]).unseen == measure(model, SERIES).unseen == {}


@pytest.mark.parametrize(
    ("rnn", "keys"), [("SimpleRNN", ["rnn/relu"]), ("LSTM", ["rnn/relu", "rnn/relu_1"]), ("GRU", ["rnn/relu"])]
)
def test_an_unrolled_rnn_layer_is_counted(rnn, keys):
    model = sequential((5, 3), getattr(L, rnn)(4, activation="relu", unroll=True, name="rnn"), L.Dense(1))
    for report in (fitted(model, SERIES, Y[:8]), measure(model, (SERIES, Y[:8]))):
        assert (list(report), dict(report.unseen)) == (keys, {})
        assert all((layer.samples, layer.positions) == (8, 40) for layer in report.layers.values())


def test_the_counts_of_an_unrolled_rnn_layer_are_those_of_its_states():
    layer = L.SimpleRNN(4, activation="relu", unroll=True, return_sequences=True, name="rnn")
    model = sequential((5, 3), layer, L.Dense(1))
    states = np.asarray(layer(SERIES))
    report = measure(model, (SERIES, np.ones((8, 5, 1), "f")))
    np.testing.assert_array_equal(report["rnn/relu"].active, (states > 0).sum((0, 1)))


class Decorated(K.Model):
    """The `call` of the model, or of its block, is a `tf.function`."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = L.Dense(4, "relu", name="hidden"), L.Dense(1)
        self.hidden.build((None, 3))
        self.out.build((None, 4))

    @tf.function
    def call(self, t):
        return self.out(self.hidden(t))


class FunctionInside(K.Model):
    """Calls a `tf.function` that calls a layer, or a function."""

    def __init__(self, kind):
        super().__init__()
        self.hidden, self.out = L.Dense(4, "relu" if kind == "layer" else None, name="hidden"), L.Dense(1)
        self.seen, self.kind = L.Dense(3, "relu", name="seen"), kind
        self.function = tf.function(self.part)
        self.hidden.build((None, 3))
        self.seen.build((None, 4))
        self.out.build((None, 3))

    def part(self, t):
        return self.hidden(t) if self.kind == "layer" else tf.nn.relu(self.hidden(t))

    def call(self, t):
        return self.out(self.seen(self.function(t)))


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("kind", "key"), [("layer", "hidden"), ("function", "relu")])
def test_what_a_tf_function_of_the_users_runs_is_named_and_left_alone(kind, key, traced):
    model = FunctionInside(kind)
    model.compile(K.optimizers.SGD(0.0), "mse")
    if traced:
        model(X)
    first = fitted(model, validation_data=(X[:16], Y[:16]))
    for report in (first, measure(model, (X, Y))):
        assert report.unseen == {key: IN_FUNCTION}
        assert list(report) == ["seen"]
        assert report.samples == 32
        assert not report.never_called
    assert not any(
        "relu_probe" in node.name
        for f in model.function._list_all_concrete_functions()
        for node in f.graph.get_operations()
    )


def test_a_model_whose_call_is_a_tf_function_is_named():
    model = Decorated()
    model.compile(K.optimizers.SGD(0.0), "mse")
    model(X)
    with pytest.warns(UserWarning, match=r"can be counted: hidden \(called inside a tf.function"):
        report = fitted(model, validation_data=(X[:16], Y[:16]))
    assert (dict(report.unseen), report.samples) == ({"hidden": IN_FUNCTION}, 0)


@pytest.mark.parametrize("eager", [False, True])
def test_a_second_thread_that_calls_the_model_is_not_counted(eager):
    model = sequential(3, L.Dense(4, "relu", name="hidden"), L.Dense(1), run_eagerly=eager)
    ended = threading.Event()

    def call():
        while not ended.is_set():
            model(X)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        report = fitted(model, epochs=2)
    finally:
        ended.set()
        thread.join()
    assert (report.samples, report["hidden"].positions) == (32, 32)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("outer", [lambda step: step, tf.function], ids=["eager", "in a function"])
def test_gradients_of_a_tape_outside_of_a_function_are_named(outer, persistent):
    """TensorFlow runs no operation of the gradient of a function that only counts. Activations are counted."""
    model = sequential(3, L.Dense(4, "relu", name="hidden"), L.Dense(1))

    @tf.function
    def function(x):
        return model(x)

    @outer
    def step(x):
        with tf.GradientTape(persistent=persistent) as tape:
            y = function(x)
            losses = [tf.reduce_sum(y), tf.reduce_sum(y**2)]
        return [tape.gradient(loss, model.trainable_variables) for loss in losses[: 1 + persistent]]

    with watch(model) as w:
        step(tf.constant(X))
    report = w.report()
    assert list(report.unseen) == ["gradients of hidden"]
    assert "open the tape inside of that function" in report.unseen["gradients of hidden"]
    assert (report["hidden"].positions, report["hidden"].with_gradient) == (32, None)
    assert "gradients of hidden" in str(report)


def test_gradients_of_a_tape_inside_of_a_function_are_counted():
    model = sequential(3, L.Dense(4, "relu", name="hidden"), L.Dense(1))

    @tf.function
    def step(x):
        with tf.GradientTape(persistent=True) as tape:
            y = model(x)
            losses = [tf.reduce_sum(y), tf.reduce_sum(y**2)]
        return [tape.gradient(loss, model.trainable_variables) for loss in losses]

    with watch(model) as w:
        step(tf.constant(X))
    report = w.report()
    assert not report.unseen
    np.testing.assert_array_equal(report["hidden"].with_gradient, report["hidden"].active)


class Loop(L.Layer):
    """A ReLU function in a loop or branch."""

    def __init__(self, kind):
        super().__init__(name="loop")
        self.kind = kind

    def call(self, t):
        if self.kind == "while":
            return tf.while_loop(lambda i, _: i < 2, lambda i, a: (i + 1, tf.nn.relu(a)), [0, t])[1]
        if self.kind == "map":
            return tf.map_fn(tf.nn.relu, t)
        return tf.cond(tf.reduce_sum(t) > 0, lambda: tf.nn.relu(t), lambda: t)


@pytest.mark.parametrize("kind", ["while", "map", "cond"])
def test_a_function_in_a_loop_is_named(kind):
    model = sequential(3, L.Dense(4, "relu", name="seen"), Loop(kind), L.Dense(1))
    for report in (fitted(model), measure(model, (X, Y))):
        assert list(report.unseen) == ["loop/relu"]
        assert report.unseen["loop/relu"].startswith("called inside tf.while_loop, tf.map_fn or tf.cond")
        assert list(report) == ["seen"]


class Recomputed(L.Layer):
    def __init__(self):
        super().__init__(name="again")
        self.dense = L.Dense(4)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, t):
        return tf.recompute_grad(lambda u: tf.nn.relu(self.dense(u)))(t)


def test_a_function_behind_recompute_grad_is_named():
    model = sequential(3, L.Dense(4, "relu", name="seen"), Recomputed(), L.Dense(1))
    for report in (fitted(model), measure(model, (X, Y))):
        assert report.unseen == {"again/relu": "behind tf.recompute_grad"}


class Strays(L.Layer):
    """Keras's layers and functions that hold a ReLU but are none, and ReLUs of no neurons."""

    def __init__(self):
        super().__init__(name="strays")
        self.prelu, self.scale = L.PReLU(), None

    def build(self, shape):
        self.prelu.build(shape)
        self.scale = self.add_weight(shape=(4,), initializer="ones", name="scale")

    def call(self, t):
        t = K.activations.get("hard_sigmoid")(self.prelu(t)) * tf.nn.relu(self.scale)
        tf.nn.relu(t + 1.0)  # nothing runs it
        return t


def test_strays_are_neither_counted_nor_named():
    model = sequential(3, L.Dense(4, "relu", name="seen"), Strays(), L.Dense(1))
    for report in (fitted(model), measure(model, (X, Y))):
        assert (list(report), dict(report.unseen)) == (["seen"], {})


class Attention(L.Layer):
    """ReLUs whose neurons are not shown: scores of attention."""

    def __init__(self):
        super().__init__(name="attention")
        self.q, self.k = L.Dense(4), L.Dense(4)

    def call(self, t):
        return tf.matmul(tf.nn.relu(tf.matmul(self.q(t), self.k(t), transpose_b=True)), t)


def test_a_relu_whose_axis_is_not_proved_is_named():
    model = sequential((5, 3), Attention(), L.Dense(4, "relu", name="seen"), L.Flatten(), L.Dense(1))
    for report in (fitted(model, SERIES, Y[:8]), measure(model, (SERIES, Y[:8]))):
        assert list(report) == ["seen"]
        assert list(report.unseen) == ["attention/relu"]
        assert report.unseen["attention/relu"].startswith("the operations before it do not show which axis")


class ChannelsFirst(L.Layer):
    def __init__(self):
        super().__init__(name="block")
        self.conv = L.Conv2D(3, 1, data_format="channels_first")

    def call(self, t):
        return tf.nn.relu(self.conv(t))


def test_channels_first_is_seen_in_the_graph():
    x = np.random.default_rng(0).standard_normal((6, 2, 4, 5)).astype("f")
    block = ChannelsFirst()
    model = sequential((2, 4, 5), block, L.Flatten())
    if not tf.config.list_physical_devices("GPU") and K.__name__.startswith("tf_keras"):
        pytest.skip("tf_keras has no such convolution on a CPU")
    report = measure(model, x)
    np.testing.assert_array_equal(report["block/relu"].active, (np.asarray(block(x)) > 0).sum((0, 2, 3)))


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
def test_layers_that_no_call_reaches_are_listed_apart():
    class Unused(K.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = L.Dense(4, "relu", name="hidden"), L.Dense(1)
            self.spare = L.Dense(4, "relu", name="spare")
            self.spare.build((None, 3))
            self.hidden.build((None, 3))
            self.out.build((None, 4))

        def call(self, t):
            return self.out(self.hidden(t))

    model = Unused()
    model.compile("sgd", "mse")
    model(X)
    with watch(model) as w:
        model(X)
    for report in (fitted(model), measure(model, (X, Y)), w.report()):
        assert (list(report), report.never_called) == (["hidden"], ("spare",))
    assert measure(model, X).unseen == {}


def test_an_eager_step_says_that_it_does_not_look_for_functions():
    model = sequential(3, L.Dense(4, "relu", name="seen"), Loop("while"), L.Dense(1), run_eagerly=True)
    for report in (fitted(model), measure(model, (X, Y))):
        assert list(report.unseen) == ["functions"]
        assert report.unseen["functions"].startswith(
            "ReLUs that are written as functions inside of a call are looked for"
        )
    plain = sequential(3, L.Dense(4, "relu", name="seen"), L.Dense(1), run_eagerly=True)
    assert fitted(plain).unseen == measure(plain, X).unseen == {}
