"""Tests of the number of samples: those that a layer saw, not the rows of its output and not those of the batch."""

import numpy as np
import pytest
import tensorflow as tf

from relu_probe import ReluProbe, measure, watch
from relu_probe.measuring.train_step import training_counters

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).standard_normal((10, 3, 4)).astype("f")
ABOVE = int((X[:, 0, 0] > 0.3).sum())
assert 0 < ABOVE < 10


class Model(K.Model):
    """Calls the ReLU layers `part`, as `use` says, and `whole`."""

    def __init__(self, use):
        super().__init__()
        self.part, self.whole, self.out = L.Dense(5, "relu", name="part"), L.Dense(4, "relu", name="whole"), L.Dense(1)
        self.use = use

    def call(self, x):
        return self.out(self.whole(x[:, 0])) + tf.reduce_mean(self.use(self.part, x))


def experts(layer, x):
    """A mixture of experts: each sample goes to one of two calls."""
    first = x[:, 0, 0] > 0.3
    return tf.reduce_sum(layer(tf.boolean_mask(x[:, 0], first))) - tf.reduce_sum(layer(x[:, 0][~first]))


def over_time(x):
    """Sums over the steps of time in a loop, as an RNN does, and returns the last of all sums."""
    return tf.scan(lambda before, now: before + now, tf.transpose(x, (1, 0, 2)))[-1]


USES = {  # how the layer is called -> (function, samples, positions)
    "on the batch": (lambda layer, x: layer(x[:, 0]), 10, 10),
    "on a sequence": (lambda layer, x: layer(x), 10, 30),
    "on steps of time": (lambda layer, x: sum(layer(t) for t in tf.unstack(x, axis=1)), 10, 30),
    "with time folded into the batch": (lambda layer, x: layer(tf.reshape(x, (-1, 4))), 10, 30),
    "with time first": (lambda layer, x: layer(tf.transpose(x, (1, 0, 2))), 10, 30),
    "on a step of time-first data": (lambda layer, x: layer(tf.transpose(x, (1, 0, 2))[1]), 10, 10),
    "behind a loop": (lambda layer, x: layer(over_time(x)), 10, 10),
    "behind a branch": (lambda layer, x: layer(tf.cond(x[0, 0, 0] > 9, lambda: x[:, 0], lambda: x[:1, 0])), 3, 3),
    "on copies": (lambda layer, x: layer(tf.repeat(x[:, 0], 3, axis=0)), 10, 30),
    "behind products of activations": (lambda layer, x: layer(tf.matmul(x, x, transpose_a=True)), 10, 40),
    "behind a mean of the batch": (lambda layer, x: layer(tf.reduce_mean(x[:, 0], 0, keepdims=True)), 3, 3),
    "on one sample": (lambda layer, x: layer(x[:1, 0]), 3, 3),
    "on one sample with time folded": (lambda layer, x: layer(tf.reshape(x[:1], (-1, 4))), 3, 9),
    "on a mask": (lambda layer, x: layer(tf.boolean_mask(x[:, 0], x[:, 0, 0] > 0.3)), ABOVE, ABOVE),
    "on the others": (lambda layer, x: layer(x[:, 0][x[:, 0, 0] <= 0.3]), 10 - ABOVE, 10 - ABOVE),
    "on selected samples": (lambda layer, x: layer(tf.gather(x, [0])), 3, 9),
    "on selected places": (lambda layer, x: layer(tf.gather(x, [0, 2], axis=1)), 10, 20),
    "on two batches": (lambda layer, x: layer(tf.concat([x[:, 0], x[:, 1] * 2], 0)), 20, 20),
    "on noise": (lambda layer, x: layer(tf.random.normal((7, 4))), 21, 21),
    "on noise for each sample": (lambda layer, x: layer(tf.random.normal((tf.shape(x)[0] * 2, 4))), 20, 20),
    "twice": (lambda layer, x: layer(x[:, 0]) - layer(-x[:, 0]), 10, 20),
    "twice, once on a part": (lambda layer, x: tf.reduce_sum(layer(x[:, 0])) + tf.reduce_sum(layer(x[:1, 0])), 10, 13),
    "on no places": (lambda layer, x: layer(x[:, :0]), 0, 0),
}


def fitted(model, **options):
    model.compile(K.optimizers.SGD(0.0), "mse", **options)
    probe = ReluProbe(strict=True)
    model.fit(X, np.ones((10, 1), "f"), batch_size=4, shuffle=False, verbose=0, callbacks=[probe])
    return probe.report


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("name", list(USES))
def test_samples_are_those_that_the_layer_saw(name, run_eagerly):
    use, samples, positions = USES[name]
    report = fitted(Model(use), run_eagerly=run_eagerly)
    assert (report["part"].samples, report["part"].positions) == (samples, positions)
    assert (report["whole"].samples, report["whole"].positions) == (10, 10)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_mixture_of_experts(run_eagerly):
    """The largest call of each step counts."""
    report = fitted(Model(experts), run_eagerly=run_eagerly)
    batches = [int((X[i : i + 4, 0, 0] > 0.3).sum()) for i in (0, 4, 8)]
    assert report["part"].samples == sum(max(n, m - n) for n, m in zip(batches, (4, 4, 2)))
    assert report["part"].positions == 10


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_samples_of_a_measurement(run_eagerly):
    model = Model(experts)
    model(X[:1])
    model.compile(run_eagerly=run_eagerly)
    assert measure(model, X)["part"].samples == max(ABOVE, 10 - ABOVE)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_step_with_a_batch_of_its_own(run_eagerly):
    """The batch of `fit` is a dummy of one sample a step."""

    class Own(K.Sequential):
        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self(tf.random.normal((64, 3))) ** 2)
            variables = self.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            return {"loss": loss}

    model, probe = Own([K.Input((3,)), L.Dense(4, "relu", name="hidden"), L.Dense(1)]), ReluProbe(strict=True)
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    model.fit(np.zeros((5, 1)), np.zeros((5, 1)), batch_size=1, verbose=0, callbacks=[probe])
    assert probe.report["hidden"].samples == probe.report["hidden"].positions == 320


# --- without a step: the outermost calls of the model -----------------------------------------------------------------


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", list(USES))
def test_each_outermost_call_is_a_step_of_a_watch(name, graph):
    use, samples, positions = USES[name]
    model = Model(use)
    model(X[:1])

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x))
        return tape.gradient(loss, model.trainable_variables)

    if graph:
        step = tf.function(step, reduce_retracing=True)
    with watch(model) as w:
        for i in (0, 4, 8):
            step(tf.constant(X[i : i + 4]))
    part = w.report()["part"]
    assert (part.samples, part.positions) == (samples, positions)
    assert not positions or part.with_gradient.sum() > 0


def test_an_eager_step_makes_no_counters_for_each_number_of_rows():
    """A mask selects another number of samples in each step."""
    model, probe = Model(lambda layer, x: layer(tf.boolean_mask(x[:, 0], x[:, 0, 0] > 0.3))), ReluProbe(strict=True)
    model.compile(K.optimizers.SGD(0.0), "mse", run_eagerly=True)
    model.fit(X, np.ones((10, 1), "f"), batch_size=3, epochs=3, verbose=0, callbacks=[probe])
    assert probe.report["part"].samples == ABOVE
    assert len(training_counters(model).blocks) == 1
