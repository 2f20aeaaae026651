"""A net in a stack trains as it does alone, and the regression is the task and the learner that it is said to be."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parent))

import slow_regression
from stacked_nets import K, L, OfOneNet, stacked

pytestmark = pytest.mark.once
X = np.random.default_rng(0).standard_normal((64, 3, 4)).astype("float32")
Y = X.sum(2, keepdims=True)


@pytest.mark.parametrize("optimizer", [lambda: K.optimizers.SGD(0.05), lambda: K.optimizers.Adam(0.01)])
@pytest.mark.parametrize("net", [0, 2])
def test_a_net_in_the_stack_trains_as_it_does_alone(net, optimizer):
    kernels = [OfOneNet("he_uniform", 1), OfOneNet("linear_uniform", 2)]
    stack = stacked(3, 4, [5, 1], "relu", kernels)
    alone = K.Sequential([K.Input((4,)), L.Dense(5, "relu"), L.Dense(1)])
    alone.set_weights([weight[net] for weight in stack.get_weights()])
    stack.compile(optimizer(), lambda y, p: tf.reduce_sum((y - p) ** 2, axis=(1, 2)))
    alone.compile(optimizer(), lambda y, p: tf.reduce_sum((y - p) ** 2, axis=1))
    stack.fit(X, Y, batch_size=16, epochs=5, shuffle=False, verbose=0)
    alone.fit(X[:, net], Y[:, net], batch_size=16, epochs=5, shuffle=False, verbose=0)
    for of_stack, of_one in zip(stack.get_weights(), alone.get_weights()):
        np.testing.assert_allclose(of_stack[net], of_one, rtol=1e-4, atol=1e-5)
        assert not np.allclose(of_stack[1], of_one, atol=1e-2)  # the planted mistake: another net


def test_the_draw_has_the_variance_that_is_usual_for_one_net():
    for kind, variance in (("he_normal", 2 / 30), ("he_uniform", 2 / 30), ("glorot_uniform", 2 / 50)):
        drawn = np.asarray(OfOneNet(kind, seed=1)((100, 30, 20), "float32"))
        assert np.var(drawn) == pytest.approx(variance, rel=0.02)


def test_the_regression_takes_the_steps_of_plain_sgd():
    arms = {"nothing": {}, "L2": {"l2": 0.1}, "LeakyReLU, standardised": {"slope": 0.3, "standardised": True}}
    tasks = slow_regression.Tasks(arms, 2, 5)
    model = slow_regression._learners("relu", tasks, 5)
    initial = [weight.astype(np.float64) for weight in model.get_weights()]
    x, y = (part[:300] for part in tasks.next(slow_regression.NEWEST))
    update = slow_regression.PlainSgd(model, tasks)
    update(x, y)
    update.write(model)
    for learner in (0, 5, 15, 26, 35):  # each arm and rate, both tasks and seeds
        arm, task, rate = tasks.names[learner // 2]
        stream = ("flip one", "redraw all").index(task) * 2 + learner % 2
        options = {"slope": 0.0, "l2": 0.0, "standardised": False} | arms[arm]
        expected = one_by_one([w[learner] for w in initial], x[..., stream], y[..., stream], rate, **options)
        for found, weight in zip(model.get_weights(), expected):
            np.testing.assert_allclose(found[learner], weight, rtol=1e-3, atol=1e-3)
        assert not np.allclose(model.get_weights()[0][learner], initial[0][learner], atol=1e-2)


def one_by_one(first, x, y, rate, *, slope, l2, standardised):
    """The weights of one learner after plain SGD: the slow, obvious way."""
    kernel, bias, out, shift = (weight.copy() for weight in first)
    for bits, target in zip(x.astype(np.float64), y):
        inputs = 2 * bits - 1 if standardised else bits
        z = inputs @ kernel + bias
        a = np.where(z > 0, z, slope * z)
        error = 2 * (a @ out[:, 0] + shift[0] - target)
        at_z = error * out[:, 0] * np.where(z > 0, 1, slope)
        gradients = [np.outer(inputs, at_z), at_z, error * a[:, None], np.array([error])]
        for weight, gradient, start in zip((kernel, bias, out, shift), gradients, first):
            weight[...] = weight - rate * (gradient + 2 * l2 * (weight - start))
    return kernel, bias, out, shift


def test_the_task_changes_as_it_should():
    for task, changed in (("flip one", {1}), ("redraw all", set(range(16)))):
        stream = slow_regression.Stream(task, 3)
        slow = [stream.next(10_000)[0][:, :15] for _ in range(4)]
        assert all(np.all(part == part[0]) for part in slow)
        assert {int(np.sum(a[0] != b[0])) for a, b in pairwise(slow)} <= changed
    x, y = slow_regression.Stream("flip one", 3).next(2000)
    assert set(np.unique(x)) == {0, 1}
    assert np.all(y == np.round(y))
