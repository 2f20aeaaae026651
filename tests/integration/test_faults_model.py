"""Faults: changes of the model between fits or during a fit. The training is the same as without a probe."""

import warnings
from functools import cache

import harm
import numpy as np
import pytest
from assertions import assert_report, counts_of
from harm import KERAS3, K, L

from relu_probe import ReluProbe, measure
from relu_probe.structure.train_function import tf_functions


def fit(model, *callbacks, epochs=2):
    """Trains on one batch an epoch, so that the counts of an epoch are those of the weights at its beginning."""
    return harm.fitted(model, list(callbacks), epochs=epochs, batch_size=24, shuffle=False)


# --- between fits -----------------------------------------------------------------------------------------------------


def recompile(model, loss="mse", **options):
    model.compile(K.optimizers.Adam(0.01), loss, **options)


def set_trainable(value, compiles):
    def change(model):
        model.layers[0].trainable = value
        if compiles:
            recompile(model)

    return change


def add_layers(compiles):
    def change(model):
        K.utils.set_random_seed(2)
        model.pop()
        model.add(L.Dense(5, "relu", name="added"))
        model.add(L.Dense(1, name="out"))
        if compiles:
            recompile(model)

    return change


CHANGES = {
    "recompiled": recompile,
    "run eagerly": lambda model: recompile(model, loss="mae", run_eagerly=True),
    "frozen": set_trainable(False, True),
    "frozen, not compiled": set_trainable(False, False),
    "thawed": set_trainable(True, True),
    "thawed, not compiled": set_trainable(True, False),
    "layers added": add_layers(True),
}
TWICE, AFTER, BEFORE = (1, 1), (0, 1), (1, 0)  # which of the two fits is watched
SILENT = [*((change, TWICE) for change in CHANGES), ("frozen", AFTER), ("frozen", BEFORE), ("layers added", AFTER)]


@cache
def unwatched(change):
    return two_fits(change, [], [])[0]


def two_fits(change, first, second):
    """What both fits leave, the expected counts of the second, and the probe's warnings."""
    model = harm.net()
    if "thawed" in change:
        CHANGES["frozen"](model)
    left = [fit(model, *first)]
    CHANGES[change](model)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        expected = measure(model, harm.data())
        left.append(fit(model, *second, epochs=1))
    assert harm.clean(model)
    return left, expected, [str(w.message) for w in told if "relu_probe" in str(w.message)]


@pytest.mark.parametrize(("change", "watched"), SILENT)
def test_a_model_changed_between_fits(change, watched):
    probe = ReluProbe(strict=True)
    left, expected, told = two_fits(change, [ReluProbe(strict=True)] * watched[0], [probe] * watched[1])
    assert all(map(harm.same, unwatched(change), left))
    assert told == []
    if watched[1]:
        untrained = {"with_gradient": None} if change in ("frozen", "thawed, not compiled") else {}
        assert_report(probe.report, counts_of(expected, **untrained), 24)


@pytest.mark.skipif(not KERAS3, reason="tf_keras keeps to what was trainable at compile()")
@pytest.mark.parametrize(("change", "why"), [("frozen", " was frozen after "), ("thawed", "Unknown variable")])
def test_trainable_changed_without_compile_before_the_first_fit_with_a_probe(change, why):
    """Keras goes on with its traced step. A counted step can no longer be traced the same way, and a warning says so."""
    change, probe = f"{change}, not compiled", ReluProbe()
    left, _, told = two_fits(change, [], [probe])
    assert all(map(harm.same, unwatched(change), left))
    assert len(told) == 1
    assert why in told[0]
    assert why in probe.report.incomplete


@pytest.mark.skipif(not KERAS3, reason="tf_keras keeps to what was trainable at compile()")
def test_trainable_changed_without_compile_after_the_last_fit_with_a_probe():
    """A known limit. Keras 3 trains the weights that were trainable when it traced its own step, and under a probe that
    counts every step that step is not traced. So a following fit without a probe respects the new value of `trainable`.
    """
    change = "frozen, not compiled"
    _, plain = unwatched(change)
    (before, left), _, _ = two_fits(change, [ReluProbe()], [])
    assert np.array_equal(before["weights"][0], left["weights"][0])  # the frozen kernel did not change
    assert not np.array_equal(before["weights"][0], plain["weights"][0])
    compiled = unwatched("frozen")[1]
    assert np.array_equal(compiled["weights"][0], left["weights"][0])


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 2}], ids=str)
def test_trainable_changed_during_a_fit_without_compile(frozen, options):
    """Keras's own step, traced only in an epoch that is not measured, would train other weights."""

    def train(callbacks):
        model = harm.net(**options)
        if frozen:
            model.layers[0].trainable = False
            model.compile(K.optimizers.Adam(0.01), "mse", **options)

        def flip(epoch, logs):
            if epoch == 1:
                model.layers[0].trainable = frozen

        return harm.fitted(
            model, [*callbacks, K.callbacks.LambdaCallback(on_epoch_begin=flip)], epochs=4, batch_size=12
        )

    assert harm.same(train([]), train([ReluProbe(freq=2, strict=True)]))


def test_one_probe_in_the_fits_of_two_models():
    probe, (one, two) = ReluProbe(strict=True), (harm.net(), harm.net(name="other"))
    for model, name in ((one, "hidden"), (two, "other"), (one, "hidden")):
        fit(model, epochs=1)
        expected = measure(model, harm.data())
        fit(model, probe, epochs=1)
        assert [list(report) for report in probe.reports] == [[name]]
        assert_report(probe.report, counts_of(expected), 24)
    assert harm.clean(one)
    assert harm.clean(two)


def test_listed_after_early_stopping():
    def train(callbacks):
        stopper = K.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9, restore_best_weights=True)
        return harm.fitted(harm.net(), [stopper, *callbacks], epochs=5)

    probe = ReluProbe(strict=True)
    harm.assert_no_harm(train, [probe])
    assert [report.epoch for report in probe.reports] == [0, 1]
    assert [report.samples for report in probe.reports] == [24, 24]


@pytest.mark.parametrize(("freq", "traces"), [(1, 0), (2, 1)])
def test_keras_own_step_is_traced_only_if_it_is_needed(freq, traces):
    model = harm.net()
    fit(model, ReluProbe(freq=freq), epochs=1)
    own = tf_functions(model.train_function)
    assert sum(function.experimental_get_tracing_count() for function in own) == traces
