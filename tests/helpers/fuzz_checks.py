"""Checks of the fuzz test: the counts of a random model, measured and trained, equal those of the oracle."""

import contextlib
import dataclasses

import fuzz
import harm
import numpy as np
import oracle
import tensorflow as tf
from assertions import assert_counts
from hypothesis import HealthCheck, Phase, given, settings
from keras_version import LEGACY

from relu_probe import ReluProbe, Report, measure, watch
from relu_probe.structure.relu_layers import find_relus

LONG = settings.get_profile("long")


def run(check, cases, record_property, phases=(Phase.generate, Phase.shrink)):
    """Runs `check` on random cases. pytest's summary says how many were run and how many failed."""
    done = {"run": 0, "failed": 0}

    @settings(
        max_examples=cases,
        derandomize=cases < LONG.max_examples // 4,  # the same cases in each run of CI
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=phases,
        report_multiple_bugs=False,
    )
    @given(fuzz.cases)
    def each(case):
        done["run"] += 1
        tf.keras.backend.clear_session()
        try:
            check(case)
        except BaseException:
            done["failed"] += 1
            raise

    try:
        each()
    finally:
        record_property("fuzz", f"{check.__name__}: {done['run']} cases, {done['failed']} failed")


def assert_laws(report):
    """0 <= with_gradient <= active <= positions, and a dead neuron has zero gradient."""
    for layer in report.layers.values():
        assert layer.samples <= layer.positions
        assert (layer.active >= 0).all()
        assert (layer.active <= layer.positions).all()
        if layer.with_gradient is not None:
            assert (layer.with_gradient >= 0).all()
            assert (layer.with_gradient <= layer.active).all()
            assert layer.zero_gradient[layer.dead].all()


def assert_found(report, expected, samples):
    """The report has the expected counts and obeys the laws."""
    assert list(report) == list(expected)
    assert report.samples == samples
    for key, layer in report.layers.items():
        assert_counts(layer, expected[key])
        assert layer.samples == expected[key]["samples"]
    assert_laws(report)


def measured(case, count=oracle.measure):
    """`measure` counts what `count` does; reports of shards add up to the whole."""
    model, (x, y) = case.model(), case.data()
    report, expected = measure(model, (x, y), batch_size=case.batch), count(model, oracle.batches(x, y, case.batch))
    assert_found(report, expected, case.samples)
    for key, layer in report.layers.items():
        np.testing.assert_array_equal(layer.nan, expected[key]["nan"])
    cut = case.samples // 2 // case.batch * case.batch  # at the end of a batch: sums of extremes depend on their order
    shards = [tf.nest.map_structure(lambda a, part=part: a[part], (x, y)) for part in (slice(cut), slice(cut, None))]
    total = sum((measure(model, shard, batch_size=case.batch) for shard in shards[not cut :]), Report.empty())
    for key, layer in report.layers.items():
        assert total[key].positions == layer.positions
        for name in ("active", "with_gradient", "nan"):
            np.testing.assert_array_equal(getattr(total[key], name), getattr(layer, name))


def trained(case, count=oracle.train, lost=fuzz.lost):
    """A fit counts what `count` does. The rate is 0, so that sums stay exact; 0 times an infinite gradient makes weights NaN."""
    (x, y), model, probe = case.data(), case.model(), ReluProbe(strict=True)
    expected = count(model, x, y, case.batch)
    left, model = harm.state(model), case.model()
    model.fit(x, y, batch_size=case.batch, shuffle=False, verbose=0, callbacks=[probe])
    if case.random and LEGACY:  # tf_keras' Dropout draws other numbers in each graph
        return assert_laws(probe.report)
    assert harm.same(left, harm.state(model))
    expected = dict(zip(probe.report.layers, expected.values(), strict=True))  # the two models' names differ
    assert_found(probe.report, expected, case.samples)
    for relu, (key, layer) in zip(find_relus(model), probe.report.layers.items()):
        assert layer.frozen == (layer.with_gradient is None)
        in_weights = lost(relu.layer, layer.neurons)
        if (
            in_weights is None
        ):  # an operation or a custom layer: its weights are unknown, so any NaN weight may explain it
            in_weights = layer.nan & any(np.isnan(weight).any() for weight in left["weights"])
        np.testing.assert_array_equal(layer.nan, expected[key]["nan"] | in_weights)


def watched(case):
    """A loop with several tapes, in a graph or eager: a position counts once, if any of the gradients arrives there."""
    case = dataclasses.replace(case, planted=[], parts=[each for each in case.parts if each[0] != "frozen"])
    rng, model, (x, _) = np.random.default_rng(case.seed), case.model(), case.data()
    graph, tapes, persistent = rng.random() < 0.5, int(rng.integers(1, 3)), rng.random() < 0.5

    def losses(outputs):
        return [tf.reduce_sum(each) for each in tf.nest.flatten(outputs)] + [
            tf.reduce_sum(tf.nest.flatten(outputs)[0] ** 2)
        ]

    def step(batch):
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(tf.GradientTape(persistent=persistent)) for _ in range(tapes)]
            found = losses(model(batch))
        for tape in opened:
            for loss in found[: len(found) if persistent else 1]:
                tape.gradient(loss, model.trainable_variables)

    batches = [tf.constant(x[i : i + case.batch]) for i in range(0, case.samples, case.batch)]
    run_step = tf.function(step, reduce_retracing=True) if graph else step
    with watch(model) as w:
        for batch in batches:
            run_step(batch)
    outputs, arrived = {key: [] for key in w.report()}, {key: [] for key in w.report()}
    for batch in batches:
        with oracle.Recorder(model) as recorder, tf.GradientTape(persistent=True) as tape:
            found = losses(model(batch))
        for key in outputs:
            each = [tape.gradient(loss, recorder.outputs[key]) for loss in found[: len(found) if persistent else 1]]
            nonzero = [recorder.gradients(key, gradients) for gradients in each]
            outputs[key] += recorder.outputs[key]
            arrived[key] += [_any_nonzero(gradients) for gradients in zip(*nonzero)]
    for relu in find_relus(model):
        assert_counts(w.report()[relu.key], oracle.counts(relu, outputs[relu.key], arrived[relu.key]))
    assert_laws(w.report())


def _any_nonzero(gradients):
    """Returns an array that is not zero where any gradient is not; None if no gradient arrived."""
    arrays = [np.asarray(each) != 0 for each in gradients if each is not None]
    return np.any(arrays, axis=0) if arrays else None


def unharmed(case):
    """A training with the probe equals one without."""
    x, y = case.data()
    harm.assert_no_harm(
        lambda callbacks: harm.fitted(case.model(1e-4), callbacks, x, y, epochs=1, batch_size=case.batch),
        [ReluProbe(strict=True)],
    )


def exact(case):
    """The comparisons' assumption: without extremes, all numbers and their sums in any order have at most 24 bits."""
    model, (x, y) = case.model(), dataclasses.replace(case, planted=[]).data()
    for training in (False, True):
        found = oracle.measure(model, oracle.batches(x, y, case.batch), training, count=lambda _, a, g: [*a, *g])
        values = np.concatenate([np.ravel(a) for arrays in found.values() for a in arrays if a is not None])
        unit = max(u for u in 2.0 ** -np.arange(10) if (values % u == 0).all())  # a leaky ReLU halves values
        assert np.abs(values).max() < 2**24 * unit
