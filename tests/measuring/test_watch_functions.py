"""ReLUs that are written as functions, in a `tf.function` of the user's that a `watch` sees traced: against brute force."""

from contextlib import nullcontext

import function_oracle
import numpy as np
import pytest
import tensorflow as tf
from function_models import MODELS, Residual, build
from models import sequential

from relu_probe import watch

K, L = tf.keras, tf.keras.layers


def loss_of(model, x, y):
    return model.compute_loss(x, y, model(x, training=True))


def step_of(model, *, jit=False, persistent=False):
    """Returns a training step whose tape is inside of its `tf.function`."""

    @tf.function(jit_compile=jit)
    def step(x, y):
        with tf.GradientTape(persistent=persistent) as tape:
            loss = loss_of(model, x, y)
        if persistent:
            tape.gradient(loss**2, model.trainable_variables)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))

    return step


@pytest.mark.parametrize(("name", "jit"), [*((name, False) for name in MODELS), ("made inside", True), ("mixed", True)])
def test_functions_in_a_traced_step_agree_with_brute_force(name, jit):
    model, x, y, keys = build(name)
    expected = function_oracle.counts(model, x, y, keys, training=True)
    with watch(model) as w:
        step_of(model, jit=jit)(x, y)
    function_oracle.assert_counted(w.report(), expected)
    assert not w.report().unseen
    assert w.report().samples == len(x)


def summed(found):
    return {key: {name: sum(each[key][name] for each in found) for name in found[0][key]} for key in found[0]}


def test_retraces_later_blocks_and_two_gradients_of_one_tape_are_counted():
    model, x, y, keys = build("made inside")
    parts = [(x[:4], y[:4]), (x[4:], y[4:])]
    step = step_of(model, persistent=True)
    expected = summed([function_oracle.counts(model, *part, keys, training=True) for part in parts])
    for _ in range(2):
        with watch(model) as w:
            for part in parts:
                step(*part)
        function_oracle.assert_counted(w.report(), expected)
        assert not w.report().unseen


def test_two_models_in_one_step_and_a_loop_are_counted():
    first, x, y, keys = build("residual")
    second, *_ = build("residual")
    expected = [function_oracle.counts(model, x, y, keys, training=True) for model in (first, second)]

    @tf.function
    def steps(x, y):
        for _ in tf.range(3):
            with tf.GradientTape() as tape:
                loss = loss_of(first, x, y) + loss_of(second, x, y)
            tape.gradient(loss, first.trainable_variables + second.trainable_variables)

    with watch(first) as a, watch(second) as b:
        steps(tf.constant(x), tf.constant(y))
    for block, found in zip((a, b), expected):
        function_oracle.assert_counted(block.report(), summed([found] * 3))


def test_a_layer_that_the_step_calls_by_itself_is_searched():
    model, x, _, _ = build("residual")

    @tf.function
    def call(x):
        return model.get_layer("res")(x)

    with watch(model) as w:
        result = call(x)
    assert w.report()["res/relu_1"].positions == len(x)
    np.testing.assert_array_equal(w.report()["res/relu_1"].active, (np.asarray(result) > 0).sum(0))


@pytest.mark.parametrize("jit", [False, True])
def test_a_training_is_bit_identical(jit):
    left = []
    for watched in (False, True):
        model, x, y, _ = build("mixed")
        model.compile(K.optimizers.Adam(0.01), "mse")
        with watch(model) if watched else nullcontext():
            step = step_of(model, jit=jit)
            for i in range(0, 12, 4):
                step(x[i : i + 4], y[i : i + 4])
        left.append([np.asarray(each) for each in (*model.weights, *model.optimizer.variables)])
    for a, b in zip(*left, strict=True):
        np.testing.assert_array_equal(a, b)


# --- what is named ----------------------------------------------------------------------------------------------------


def small():
    return sequential(4, L.Dense(4, "relu", name="first"), Residual(), L.Dense(1))


X = np.random.default_rng(1).standard_normal((12, 4)).astype("f")


def test_gradients_of_a_tape_outside_of_the_function_are_named():
    model = small()
    call = tf.function(model)
    with watch(model) as w, tf.GradientTape() as tape:
        loss = tf.reduce_sum(call(tf.constant(X)))
        tape.gradient(loss, model.trainable_variables)
    report = w.report()
    assert set(report.unseen) == {f"gradients of {key}" for key in ("first", "res/relu", "res/relu_1")}
    assert report["res/relu"].positions == len(X)
    assert report["res/relu"].with_gradient is None


def test_gradients_of_a_tape_outside_of_a_loop_are_named():
    model = small()

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = 0.0
            for _ in tf.range(2):
                loss += tf.reduce_sum(model(x))
        return tape.gradient(loss, model.trainable_variables)

    with watch(model) as w:
        step(tf.constant(X))
    with pytest.warns(UserWarning, match="none of the model's ReLUs can be counted"):
        report = w.report()
    assert not report.layers
    assert {"first", "res/relu", "res/relu_1"} <= set(report.unseen)


def test_functions_in_an_eager_call_are_named():
    model = small()
    with watch(model) as w:
        model(X)
    assert list(w.report()) == ["first"]
    assert list(w.report().unseen) == ["functions"]
    assert "in a tf.function inside of watch" in w.report().unseen["functions"]
