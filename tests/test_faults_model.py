"""What a user does to the model between fits, inside them, and what ends them: the training is as without a probe."""

import warnings

import harm
import numpy as np
import pytest
import tensorflow as tf
from harm import KERAS3, K, L

from relu_probe import ReluProbe, measure


def fit(model, *callbacks, epochs=2):
    """Full batches: the last epoch's counts are those of its weights at the begin."""
    return harm.fitted(model, list(callbacks), epochs=epochs, batch_size=24, shuffle=False)


def clean(model):
    """Whether nothing of ours is left on it."""
    ours = [model.train_function, model.__dict__.get("train_step"), *(layer.call for layer in model.layers)]
    return not [part for part in ours if "relu_probe" in f"{part!r} {getattr(part, '__module__', '')}"]


def assert_counts(report, expected):
    assert list(report) == list(expected)
    for name, layer in expected.layers.items():
        np.testing.assert_array_equal(report[name].active, layer.active)
        if not report[name].frozen:
            np.testing.assert_array_equal(report[name].with_gradient, layer.with_gradient)


# --- between fits -----------------------------------------------------------------------------------------------------


def again(model, loss="mse", **options):
    model.compile(K.optimizers.Adam(0.01), loss, **options)


def trainable(value, compiles):
    def change(model):
        model.layers[0].trainable = value
        if compiles:
            again(model)

    return change


def add(compiles):
    def change(model):
        K.utils.set_random_seed(2)
        model.pop()
        model.add(L.Dense(5, "relu", name="added"))
        model.add(L.Dense(1, name="out"))
        if compiles:
            again(model)

    return change


CHANGES = {
    "recompiled": again,
    "another loss": lambda model: again(model, "mae"),
    "run eagerly": lambda model: again(model, run_eagerly=True),
    "frozen": trainable(False, True),
    "frozen, not compiled": trainable(False, False),
    "thawed": trainable(True, True),
    "thawed, not compiled": trainable(True, False),
    "layers added": add(True),
}
FITS = {"watched twice": (1, 1), "watched after": (0, 1), "watched before": (1, 0)}


def two_fits(change, first, second):
    """What both leave, and the counts expected of the second."""
    model = harm.net()
    if "thawed" in change:
        CHANGES["frozen"](model)
    left = [fit(model, *first)]
    CHANGES[change](model)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        expected = measure(model, harm.data())
        left.append(fit(model, *second, epochs=1))
    assert clean(model)
    return left, expected, [str(w.message) for w in told if "relu_probe" in str(w.message)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_changed_between_fits(change):
    plain, _, _ = two_fits(change, [], [])
    for fits, (before, after) in FITS.items():
        if KERAS3 and "not compiled" in change and not after:
            continue  # see below
        probe = ReluProbe()
        left, expected, told = two_fits(change, [ReluProbe(strict=True)] * before, [probe] * after)
        assert all(map(harm.same, plain, left)), fits
        if KERAS3 and "not compiled" in change and not before:
            assert [" was frozen " in told[0] if "frozen" in change else "Unknown variable" in told[0]] == [True]
            assert probe.report.incomplete
        else:
            assert told == []
            if after:
                assert_counts(probe.report, expected)


@pytest.mark.skipif(not KERAS3, reason="tf_keras keeps to what was trainable at compile()")
def test_a_flip_without_compile_after_the_last_watched_fit():
    """The limit of the promise: Keras 3 keeps to what was trainable when its own step was traced, and under a probe that
    counts every step it was not. So the fit without a probe that follows does what `trainable` says."""
    change = "frozen, not compiled"
    (_, plain), _, _ = two_fits(change, [], [])
    (before, left), _, _ = two_fits(change, [ReluProbe()], [])
    assert np.array_equal(before["weights"][0], left["weights"][0])  # as was asked for
    assert not np.array_equal(before["weights"][0], plain["weights"][0])
    compiled = two_fits("frozen", [], [])[0][1]
    assert np.array_equal(compiled["weights"][0], left["weights"][0])


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 2}], ids=str)
def test_a_flip_in_mid_fit_without_compile(frozen, options):
    """In an epoch that is not measured Keras's own step would be traced too late, and train other weights."""

    def train(callbacks):
        model = harm.net(**options)
        if frozen:
            model.layers[0].trainable = False
            model.compile(K.optimizers.Adam(0.01), "mse", **options)

        def flip(epoch, logs):
            if epoch == 1:
                model.layers[0].trainable = frozen

        return harm.fitted(model, [*callbacks, K.callbacks.LambdaCallback(on_epoch_begin=flip)], epochs=4)

    assert harm.same(train([]), train([ReluProbe(freq=2, strict=True)]))


def test_one_probe_in_the_fits_of_two_models():
    probe, (one, two) = ReluProbe(strict=True), (harm.net(), harm.net(name="other"))
    for model, name in ((one, "hidden"), (two, "other"), (one, "hidden")):
        fit(model, epochs=1)
        expected = measure(model, harm.data())
        fit(model, probe, epochs=1)
        assert [list(report) for report in probe.reports] == [[name]]
        assert_counts(probe.report, expected)
    assert clean(one)
    assert clean(two)


def test_listed_after_early_stopping():
    def train(callbacks):
        stopper = K.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9, restore_best_weights=True)
        return harm.fitted(harm.net(), [stopper, *callbacks], epochs=5)

    probe = ReluProbe(strict=True)
    harm.assert_no_harm(train, [probe])
    assert [report.epoch for report in probe.reports] == [0, 1]
    assert [report.samples for report in probe.reports] == [24, 24]


# --- what ends a fit --------------------------------------------------------------------------------------------------


class Fault:
    """Raises at its place from the second time on (in a graph: when it is traced), while it is `armed`."""

    def __init__(self, place, kind):
        self.place, self.kind, self.armed, self.seen = place, kind, True, 0

    def hit(self, place):
        self.seen += self.armed and place == self.place
        if self.armed and place == self.place and (self.seen > 1 or place.startswith("traced")):
            raise self.kind("planted")

    def hooks(self, side):
        hit = self.hit
        return K.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: hit(f"epoch begin {side}"),
            on_epoch_end=lambda epoch, logs: hit(f"epoch end {side}"),
            on_train_batch_begin=lambda batch, logs: hit(f"batch begin {side}"),
            on_train_batch_end=lambda batch, logs: hit(f"batch end {side}"),
        )


def faulty_net(fault, **options):
    class Net(K.Sequential):
        def train_step(self, data):
            fault.hit("traced step")
            fault.hit("eager step")
            return super().train_step(data)

    def loss(y, predicted):
        fault.hit("traced loss")
        return tf.reduce_mean((y - predicted) ** 2)

    K.utils.set_random_seed(1)
    model = Net([K.Input((4,)), L.Dense(6, "relu", name="hidden"), L.Dense(1)])
    model.compile(K.optimizers.Adam(0.01), loss, **options)
    return model


def three_fits(place, kind, probes):
    """One that the fault ends, one with and one without a probe."""
    fault = Fault(place, kind)
    model = faulty_net(fault, run_eagerly=place == "eager step")
    with pytest.raises(kind, match="planted"):
        harm.fitted(model, [fault.hooks("before"), *probes, fault.hooks("after")])
    assert clean(model)
    fault.armed = False
    left = [harm.state(model), harm.fitted(model, probes), harm.fitted(model, [])]
    assert clean(model)
    return left


ENDS = [(f"{hook} {side}", KeyboardInterrupt) for hook in ("batch begin", "batch end") for side in ("before", "after")]
ENDS += [("batch begin after", SystemExit), ("epoch end before", KeyboardInterrupt), ("epoch begin after", KeyError)]
ENDS += [("batch begin after", KeyError), ("traced step", KeyboardInterrupt), ("eager step", KeyboardInterrupt)]
ENDS += [("traced step", ValueError), ("eager step", ValueError), ("traced loss", ValueError)]


@pytest.mark.parametrize(("place", "kind"), ENDS)
@pytest.mark.filterwarnings("ignore:relu_probe. measuring stopped:UserWarning")
def test_what_ends_a_fit_is_the_users_and_leaves_nothing(place, kind):
    probe = ReluProbe()
    plain, watched = three_fits(place, kind, []), three_fits(place, kind, [probe])
    assert all(map(harm.same, plain, watched))
    assert [report.samples for report in probe.reports] == [24, 24]
    assert probe.report.incomplete == ""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_it_is_not_swallowed_where_the_probe_itself_is_at_work(kind):
    class Interrupted(L.Layer):
        def call(self, x, training=None):
            if armed and not training:
                raise kind("planted")
            return x

    armed = []
    model = K.Sequential([K.Input((4,)), L.Dense(6, "relu"), Interrupted(), L.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    armed.append(True)
    with pytest.raises(kind, match="planted"):
        fit(model, ReluProbe(data=harm.data()))
    assert clean(model)
