"""`watch` in custom training loops: `train_on_batch`, a custom `train_step`, a GradientTape."""

import contextlib
import gc
import weakref

import numpy as np
import oracle
import pytest
import tensorflow as tf
from assertions import assert_report
from models import sequential, two_hidden_layers

from relu_probe import ReluProbe, measure, watch

K, L = tf.keras, tf.keras.layers
BATCHES, SIZE = 3, 5
SAMPLES = BATCHES * SIZE


def data(seed=0):
    rng = np.random.default_rng(seed)
    shape = (BATCHES, SIZE)
    return rng.standard_normal((*shape, 4)).astype("f"), rng.standard_normal((*shape, 1)).astype("f")


def build(kind=K.Sequential):
    return two_hidden_layers(kind=kind, name="net")


def expected_of(model, x, y):
    return oracle.measure(model, [(tf.constant(a), tf.constant(b)) for a, b in zip(x, y)], training=True)


def step_of(model, **options):
    """A custom training step as a tf.function."""

    @tf.function(**options)
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    return step


def eager_step_of(model):
    return step_of(model).python_function


@pytest.mark.parametrize(
    "make", [step_of, eager_step_of, lambda m: step_of(m, jit_compile=True)], ids=["graph", "eager", "jit"]
)
def test_a_gradient_tape_loop(make):
    model, (x, y) = build(), data()
    expected, step = expected_of(model, x, y), make(model)
    with watch(model) as w:
        for batch in zip(x, y):
            step(*batch)
        report = w.report()
    assert_report(report, expected, SAMPLES)
    assert report.source == "watch"
    assert report.epoch is None
    assert report["a"].dead.tolist() == [True, False, False]


def test_train_on_batch():
    model, (x, y) = build(), data()
    expected = expected_of(model, x, y)
    for _ in range(2):  # the second block uses the trace of the first
        with watch(model) as w:
            for batch in zip(x, y):
                model.train_on_batch(*batch)
            assert_report(w.report(), expected, SAMPLES)
    model.train_on_batch(x[0], y[0])  # outside of a block it is not counted, and still works


def test_train_on_batch_is_counted_even_if_it_was_traced_before():
    """Keras's own functions are traced again inside the block."""
    model, (x, y) = build(), data()
    model.train_on_batch(x[0], y[0])
    expected = expected_of(model, x, y)
    with watch(model) as w:
        for batch in zip(x, y):
            model.train_on_batch(*batch)
        assert_report(w.report(), expected, SAMPLES)


class Traced(K.Sequential):
    traces = 0

    def train_step(self, batch):
        type(self).traces += 1
        return super().train_step(batch)


@pytest.mark.parametrize("trained", [False, True])
def test_train_on_batch_is_traced_once_however_often_it_is_watched(trained):
    """The kept functions do not keep the model alive."""
    model, (x, y) = build(Traced), data()
    if trained:
        model.train_on_batch(x[0], y[0])
    counts = []
    for _ in range(3):
        with watch(model) as w:
            model.train_on_batch(x[0], y[0])
            assert w.report().samples == SIZE
        counts.append(Traced.traces)
    assert len(set(counts)) == 1, counts
    gone = weakref.ref(model)
    del model, w
    K.backend.clear_session()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("inside", [False, True])
def test_a_recompiled_model_trains_with_its_new_optimizer(inside):
    model, (x, y) = build(), data()
    if inside:
        model.train_on_batch(x[0], y[0])
    with watch(model):
        model.train_on_batch(x[0], y[0])
        if inside:
            model.compile(K.optimizers.SGD(0.1), "mse")
            model.train_on_batch(x[0], y[0])
    if not inside:
        model.compile(K.optimizers.SGD(0.1), "mse")
    for block in (watch, lambda _: contextlib.nullcontext()):
        before = model.get_weights()
        with block(model):
            model.train_on_batch(x[0], y[0])
        assert not all(map(np.array_equal, before, model.get_weights()))


class OwnStep(K.Sequential):
    def train_step(self, batch):
        x, y = batch[:2]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"loss": loss}


def test_a_custom_train_step_in_fit_and_in_train_on_batch():
    model, (x, y) = build(OwnStep), data()
    expected, probe = expected_of(model, x, y), ReluProbe(strict=True)
    model.fit(x.reshape(-1, 4), y.reshape(-1, 1), batch_size=SIZE, shuffle=False, verbose=0, callbacks=[probe])
    assert_report(probe.report, expected, SAMPLES)
    with watch(model) as w:
        for batch in zip(x, y):
            model.train_on_batch(*batch)
        assert_report(w.report(), expected, SAMPLES)


@pytest.mark.once
@pytest.mark.parametrize("mistake", ["a batch too few", "a batch twice", "no backward pass"])
def test_the_comparison_rejects(mistake):
    model, (x, y) = build(), data()
    expected, step = expected_of(model, x, y), step_of(model)
    with watch(model) as w:
        for batch in zip(x[1:] if mistake == "a batch too few" else x, y):
            model(batch[0]) if mistake == "no backward pass" else step(*batch)
        if mistake == "a batch twice":
            step(x[0], y[0])
        with pytest.raises(AssertionError):
            assert_report(w.report(), expected, SAMPLES)


# --- traced when? -----------------------------------------------------------------------------------------------------

TRACED_BEFORE = (
    "watch counted no call of model 'net': it was not called in the block; or only by a fit with a ReluProbe or by "
    "measure, which have reports of their own; or only by a tf.function that was traced before the first watch, which runs "
    "without the probes. Make or first call the tf.function inside the block."
)


def test_a_step_traced_before_the_block_is_not_counted_and_report_says_why():
    model, (x, y) = build(), data()
    step = step_of(model)
    step(x[0], y[0])
    with watch(model) as w:
        step(x[0], y[0])
        with pytest.raises(RuntimeError) as error:
            w.report()
    assert str(error.value) == TRACED_BEFORE


def test_a_block_without_a_call_is_an_error():
    with watch(build()) as w, pytest.raises(RuntimeError, match="watch counted no call of model 'net'"):
        w.report()


def test_watch_inside_the_loop_over_epochs():
    """The step is traced in the first block; later blocks reset and reuse its counters."""
    model, (x, y) = build(), data()
    expected, step, traces = expected_of(model, x, y), step_of(model), set()
    for _ in range(3):
        with watch(model) as w:
            for batch in zip(x, y):
                step(*batch)
        assert_report(w.report(), expected, SAMPLES)  # after the block as well
        traces.add(step.experimental_get_tracing_count())
    assert len(traces) == 1


def test_calls_outside_the_block_by_a_step_traced_inside():
    """The trace contains the probes, which count there too; but no report shows it."""
    model, (x, y) = build(), data()
    step = step_of(model)
    with watch(model) as w:
        step(x[0], y[0])
        assert w.report().samples == SIZE
    step(x[1], y[1])
    assert w.report().samples == SIZE
    with watch(model) as w:
        step(x[2], y[2])
        assert w.report().samples == SIZE


def test_the_report_of_an_ended_block_stays_what_it_was():
    """The next block resets and reuses the same counters."""
    model, (x, _) = build(), data()
    with watch(model) as first:
        model(x[0])
    with watch(model) as second:
        model(x[0])
        model(x[1])
    assert (first.report().samples, second.report().samples) == (SIZE, 2 * SIZE)
    np.testing.assert_array_equal(first.report()["a"].active, measure(model, (x[0],))["a"].active)


def test_the_report_of_a_block_that_raised_stays_what_it_was():
    model, (x, _) = build(), data()
    with contextlib.suppress(KeyError), watch(model) as first:
        model(x[0])
        raise KeyError
    assert first.report().samples == SIZE
    with watch(model):
        model(x[0])
        model(x[1])
    assert first.report().samples == SIZE


def test_a_block_without_a_call_does_not_become_one_with_the_calls_of_the_next():
    model, (x, _) = build(), data()
    with watch(model) as first:
        pass
    with watch(model):
        model(x[0])
    with pytest.raises(RuntimeError, match="watch counted no call of model 'net'"):
        first.report()


def test_a_watch_keeps_no_model_alive():
    model, (x, _) = build(), data()
    with watch(model) as w:
        model(x[0])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert w.report().samples == SIZE


def test_the_report_has_only_the_selected_layers():
    model, (x, y) = build(), data()
    with watch(model, layers="b") as w:
        step_of(model)(x[0], y[0])
        assert list(w.report().layers) == ["b"]


def test_measure_inside_a_watch_has_its_own_counts():
    model, (x, y) = build(), data()
    with watch(model) as w:
        step_of(model)(x[0], y[0])
        assert measure(model, (x[1], y[1])).samples == SIZE
        assert w.report().samples == SIZE


# --- TensorFlow's own loops and branches ------------------------------------------------------------------------------

IN_A_LOOP = (
    "called inside tf.while_loop, tf.map_fn or tf.cond, through which its gradient cannot be counted: write the loop in "
    "Python, or compile the model with run_eagerly=True"
)
NOTHING_COUNTED = r"none of the model's ReLUs can be counted: a \(called inside tf.while_loop"


class InALoop(L.Layer):
    """Calls its Dense layer from the body of a loop or branch."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.inner = kind, L.Dense(4, "relu", name="a")

    def build(self, shape):
        self.inner.build(shape)
        self.built = True

    def call(self, x):
        def body(i, value):
            return i + 1, tf.ensure_shape(self.inner(value), value.shape)

        if self.kind == "while_loop":
            return tf.while_loop(lambda i, _: i < 3, body, [0, x])[1]
        if self.kind == "map_fn":
            return tf.ensure_shape(tf.map_fn(lambda row: self.inner(row[None])[0], x), x.shape)
        return tf.cond(tf.reduce_sum(x) > -1e9, lambda: self.inner(x), lambda: x)


def looping(kind):
    K.utils.set_random_seed(1)
    return sequential(4, InALoop(kind), L.Dense(1), optimizer=K.optimizers.SGD(0.1), name="net")


@pytest.mark.parametrize("kind", ["while_loop", "map_fn", "cond"])
def test_a_layer_inside_a_tensorflow_loop_is_named_and_trained_as_without_a_probe(kind):
    x, y = (array.reshape(-1, array.shape[-1]) for array in data())
    plain, watched = looping(kind), looping(kind)
    plain.train_on_batch(x, y)
    with watch(watched) as w:
        watched.train_on_batch(x, y)
        with pytest.warns(UserWarning, match=NOTHING_COUNTED):
            reports = [w.report()]
    for probe in (ReluProbe(), ReluProbe(data=(x, y))):
        fitted = looping(kind)
        with pytest.warns(UserWarning, match=NOTHING_COUNTED) as caught:
            fitted.fit(x, y, batch_size=len(x), shuffle=False, verbose=0, callbacks=[probe])
        assert all(np.array_equal(a, b) for a, b in zip(plain.get_weights(), fitted.get_weights()))
        assert {warning.filename for warning in caught} == {__file__}  # the line of the fit, not one of a library
        reports.append(probe.report)
    with pytest.warns(UserWarning, match=NOTHING_COUNTED):
        reports.append(measure(plain, (x, y)))
    for report in reports:
        assert (report.unseen["a"], list(report.layers), report.samples) == (IN_A_LOOP, [], 0)
        assert np.isnan(report.dead_fraction)
    assert all(np.array_equal(a, b) for a, b in zip(plain.get_weights(), watched.get_weights()))


class Recomputed(InALoop):
    def call(self, x):
        return tf.recompute_grad(self.inner)(x)


@pytest.mark.parametrize("eager", [False, True])
def test_a_layer_inside_recompute_grad_is_counted_once(eager):
    """It is called twice: the second time, with the same outputs, for its gradient."""
    x, y = (array.reshape(-1, array.shape[-1]) for array in data())
    K.utils.set_random_seed(1)
    model = sequential(4, Recomputed("recompute"), L.Dense(1), run_eagerly=eager)
    model.layers[0].inner.bias.assign([-50.0, 0.1, 0.1, 0.1])
    model.optimizer.learning_rate = 0.0
    model.fit(x, y, verbose=0, callbacks=[probe := ReluProbe(strict=True)])
    once = np.asarray(model.layers[0].inner(x)) > 0
    for report in (probe.report, measure(model, (x, y))):
        layer = report["a"]
        assert layer.positions == len(x)
        assert layer.active.tolist() == layer.with_gradient.tolist() == once.sum(0).tolist()
        assert layer.dead.tolist() == [True, False, False, False]


def test_a_step_inside_a_tensorflow_loop_is_counted():
    """The GradientTape is inside the loop as well."""
    model, (x, y) = build(), data()
    expected, step = expected_of(model, x, y), eager_step_of(model)

    @tf.function
    def epoch():
        for i in tf.range(BATCHES):
            step(tf.gather(x, i), tf.gather(y, i))

    model.optimizer.build(model.trainable_variables)
    with watch(model) as w:
        epoch()
        assert_report(w.report(), expected, SAMPLES)


# --- nothing left -----------------------------------------------------------------------------------------------------


def attributes(model):
    names = ("call", "train_step", "train_function", "test_function", "predict_function")
    return [{name: vars(part).get(name) for name in names} for part in [model, *model.layers]]


def test_nothing_is_left_on_the_model_even_when_the_block_raises():
    model, (x, y) = build(), data()
    model.train_on_batch(x[0], y[0])
    before = attributes(model)
    with watch(model):
        model.train_on_batch(x[0], y[0])
        assert attributes(model) != before  # the comparison can fail
    assert attributes(model) == before
    with pytest.raises(KeyError), watch(model):
        raise KeyError
    assert attributes(model) == before


@pytest.mark.parametrize("own", [False, True], ids=["no call of its own", "a call of its own"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1), (1, 2, 0), (2, 0, 1)])
def test_blocks_of_models_that_share_a_layer_end_in_any_order(order, own):
    shared, (x, _) = L.Dense(3, "relu", name="shared"), data()
    models = [K.Sequential([K.Input((4,)), shared, L.Dense(units)]) for units in (1, 2, 3)]
    if own:
        vars(shared)["call"] = shared.call
    before = vars(shared).get("call")
    blocks = [watch(model) for model in models]
    watched = [block.__enter__() for block in blocks]
    models[2](x[0])
    assert watched[2].report().samples == SIZE
    for i in order:
        assert vars(shared).get("call") is not before
        blocks[i].__exit__(None, None, None)
    assert vars(shared).get("call") is before
    assert ("call" in vars(shared)) is own


def test_the_trained_weights_are_bit_identical_with_and_without_a_watch():
    (x, y), found = data(), []
    for watched in (False, True):
        K.utils.set_random_seed(1)
        model = build()
        model.compile(K.optimizers.Adam(0.1), "mse")
        step = step_of(model)
        if watched:
            with watch(model):
                losses = [float(step(*batch)) for batch in zip(x, y)]
        else:
            losses = [float(step(*batch)) for batch in zip(x, y)]
        found.append((losses, model.get_weights()))
    assert found[0][0] == found[1][0]
    assert all(np.array_equal(a, b) for a, b in zip(found[0][1], found[1][1]))
