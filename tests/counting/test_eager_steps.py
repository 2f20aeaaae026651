"""Tests of eager steps: they count what the same steps count in a graph, from the operations that TensorFlow tells of."""

import gc
import weakref

import harm
import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe, measure, watch
from relu_probe.counting.used_operations import UsedOperations
from relu_probe.utils.tensorflow_private import begin_observing, end_observing

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).standard_normal((12, 3)).astype("f")
Y = np.ones((12, 1), "f")


def hidden(name):
    return L.Dense(6, "relu", name=name, bias_initializer=K.initializers.RandomNormal(seed=1))


class GAN(K.Model):
    """Trains a discriminator, whose tape goes through the generator too, and then, in every other step, the generator."""

    def __init__(self):
        super().__init__()
        self.generator = K.Sequential([K.Input((3,)), hidden("g"), L.Dense(3)])
        self.discriminator = K.Sequential([K.Input((3,)), hidden("d"), L.Dense(1)])

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.discriminator(self.generator(x)) - self.discriminator(x))
        weights = self.discriminator.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"loss": loss}


def fitted(make, run_eagerly, batch_size=4, **compile_args):
    K.utils.set_random_seed(1)
    model, probe = make(), ReluProbe(strict=True)
    model.compile(K.optimizers.SGD(0.0), "mse", run_eagerly=run_eagerly, **compile_args)
    model.fit(X, Y, batch_size=batch_size, shuffle=False, verbose=0, callbacks=[probe])
    return probe.report


def assert_same(make):
    graph, eager = (fitted(make, run_eagerly) for run_eagerly in (False, True))
    assert list(graph) == list(eager)
    for key, layer in graph.items():
        assert (layer.samples, layer.positions, layer.frozen) == (
            eager[key].samples,
            eager[key].positions,
            eager[key].frozen,
        )
        np.testing.assert_array_equal(layer.active, eager[key].active)
        np.testing.assert_array_equal(layer.with_gradient, eager[key].with_gradient)
    return eager


def test_gradients_that_nobody_uses_are_not_counted():
    report = assert_same(GAN)
    assert not report["g"].with_gradient.any()
    assert report["d"].with_gradient.any()


@pytest.mark.once
def test_a_gradient_that_nobody_uses_is_found(monkeypatch):
    """The planted mistake takes every gradient for a used one."""
    monkeypatch.setattr(UsedOperations, "__contains__", lambda self, tensor: True)
    with pytest.raises(AssertionError):
        test_gradients_that_nobody_uses_are_not_counted()


class ThroughNumPy(K.Sequential):
    """Clips the gradients with NumPy, where TensorFlow does not see them."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        weights = self.trainable_weights
        gradients = [tf.constant(np.clip(g.numpy(), -1, 1)) for g in tape.gradient(loss, weights)]
        self.optimizer.apply_gradients(zip(gradients, weights))
        return {"loss": loss}


def test_gradients_that_leave_tensorflow_are_counted():
    def make(kind=ThroughNumPy):
        return kind([K.Input((3,)), hidden("a"), hidden("b"), L.Dense(1)])

    found, expected = fitted(make, run_eagerly=True), fitted(lambda: make(K.Sequential), run_eagerly=True)
    for key in ("a", "b"):
        assert found[key].with_gradient.any()
        np.testing.assert_array_equal(found[key].with_gradient, expected[key].with_gradient)


class Recurrent(L.Layer):
    """Adds a long sequence up in Python."""

    def call(self, x):
        state = x
        for _ in range(600):
            state = 0.5 * state + 0.5 * tf.reverse(x, [1])
        return state


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [Recurrent(), hidden("a")],
        lambda: [
            L.Reshape((3, 1)),
            L.EinsumDense("abc,cde->abde", (3, 2, 4), activation="relu", name="a"),
            L.Flatten(),
        ],
        lambda: [L.Dense(6, "relu", name="a", trainable=False), hidden("b")],
        lambda: [L.Dropout(0.0), L.Dense(4, L.ReLU(max_value=0.5), name="a"), L.ReLU(max_value=0.1, name="b")],
    ],
    ids=["a long loop in Python", "flattened neurons", "a frozen layer", "bounds"],
)
def test_an_eager_step_counts_as_a_graph_does(layers):
    assert_same(lambda: K.Sequential([K.Input((3,)), *layers(), L.Dense(1)]))


def net(**compile_args):
    return sequential(3, hidden("a"), L.Dropout(0.5), hidden("b"), L.Dense(1), run_eagerly=True, **compile_args)


def test_an_eager_training_is_bit_identical():
    def trained(callbacks):
        K.utils.set_random_seed(1)
        return harm.fitted(net(optimizer="adam"), callbacks, X, Y)

    harm.assert_no_harm(trained, [ReluProbe(strict=True)])


def test_nothing_observes_operations_afterwards():
    """Nor does a record keep the tensors of a step."""
    model, seen = net(), []
    begin_observing(observer := lambda *args, **_: seen.append(args[0]) or args[3])
    try:
        tensors = [weakref.ref(tensor) for tensor in [tf.ones((4, 3)) * 2]]
        with watch(model) as w:
            model(tf.ones((4, 3)))
        model.fit(X, Y, verbose=0, callbacks=[ReluProbe(strict=True)])
        measure(model, (X, Y))
        assert w.report().samples == 4
        from tensorflow.python.eager import context

        assert context.context().op_callbacks == [observer]
    finally:
        end_observing(observer)
    gc.collect()
    assert tensors[0]() is None
    assert "MatMul" in seen


def test_under_tensorflows_own_debugger():
    tf.debugging.enable_check_numerics()
    try:
        model = net()
        model.fit(X, Y, verbose=0, callbacks=[ReluProbe(strict=True)])
        function = tf.function(lambda x: tf.map_fn(lambda row: tf.cond(row[0] > 0, lambda: row, lambda: -row), x))
        with watch(model):
            model(function(tf.constant(X)))
    finally:
        tf.debugging.disable_check_numerics()


def test_an_error_of_the_record_ends_no_operation(monkeypatch):
    def fails(self, kind, inputs):
        raise TypeError("planted")

    monkeypatch.setattr("relu_probe.counting.eager_operations.EagerOperations._keep_values", fails)
    monkeypatch.setattr("relu_probe.counting.eager_operations._WITH_CONSTANTS", ("MatMul",))  # each layer has one
    model, probe = net(), ReluProbe()
    with pytest.warns(UserWarning, match="an operation could not be recorded: TypeError: planted"):
        model.fit(X, Y, verbose=0, callbacks=[probe])
    with watch(model) as w:
        model(X)
    with pytest.warns(UserWarning, match="an operation could not be recorded"):
        assert set(w.report().unseen) == {"a", "b"}


def test_without_the_record_nothing_is_counted_and_the_report_says_why(monkeypatch):
    def missing(observer):
        raise ImportError

    monkeypatch.setattr("relu_probe.counting.eager_operations.begin_observing", missing)
    model, probe = net(), ReluProbe()
    with pytest.warns(UserWarning, match="does not show the operations of an eager step"):
        model.fit(X, Y, verbose=0, callbacks=[probe])
    assert "does not show the operations of an eager step" in probe.report.incomplete
