"""Copies of the probe and of the model, fits inside fits and beside each other: each is as if it were alone."""

import copy
import pickle
import threading
import warnings

import harm
import numpy as np
import pytest
import stacks
from harm import K
from stacks import KERAS

from relu_probe import ReluProbe

# --- of the probe -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_of_the_probe_has_its_reports_and_works_in_any_fit(tmp_path, copied):
    probe = ReluProbe(tmp_path, data=harm.data(), name="mine", freq=2, layers="hid*", activation_sum=True, strict=True)
    for _ in range(2):  # before its first fit, and after it
        other = copied(probe)
        assert other.reports == probe.reports
        harm.assert_no_harm(lambda callbacks: harm.fitted(harm.net(), callbacks), [other])
        assert [report.samples for report in other.reports] == [24]
        assert (other.name, other.freq, other.layers) == ("mine", 2, "hid*")
        harm.fitted(harm.net(), [probe])
        assert probe.reports == other.reports


def test_a_copy_made_in_mid_fit_is_no_part_of_it(tmp_path):
    copies = []
    probe = ReluProbe(tmp_path, strict=True)
    take = K.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: copies.append(copy.deepcopy(probe)),
        on_epoch_end=lambda epoch, logs: copies.append(pickle.loads(pickle.dumps(probe))),
    )
    harm.assert_no_harm(lambda callbacks: harm.fitted(harm.net(), callbacks), [probe, take])
    assert [len(other.reports) for other in copies] == [0, 0, 0, 1, 1, 1, 1, 2]
    assert [report.epoch for report in probe.reports] == [0, 1]
    model = harm.net()
    harm.fitted(model, [copies[0]])
    assert copies[0].reports == probe.reports


# --- of the model -----------------------------------------------------------------------------------------------------

LOAD = """
import sys
sys.modules["relu_probe"] = None  # as where it is not installed
import harm, numpy as np, tensorflow as tf
from harm import K
for path in sys.argv[1:]:
    if path.endswith("export"):
        print(np.asarray(tf.saved_model.load(path).serve(harm.data()[0])).ravel().tolist())
    else:
        print(K.models.load_model(path).predict(harm.data()[0], verbose=0).ravel().tolist())
"""


class Copies(K.callbacks.Callback):
    """Clones, copies of the whole, exports of a model, made at the begin of a batch and at the end of an epoch."""

    def __init__(self, place):
        super().__init__()
        self.place, self.clones = place, []

    def on_train_batch_begin(self, batch, logs=None):
        self.take(f"batch{int(batch)}")

    def on_train_batch_end(self, batch, logs=None):
        self.take(f"end{int(batch)}")

    def on_epoch_end(self, epoch, logs=None):
        self.take("epoch")
        self.model.export(str(self.place / "export"), **({"verbose": False} if KERAS >= (3, 4) else {}))

    def take(self, when):
        clone = K.models.clone_model(self.model)
        clone.set_weights(self.model.get_weights())
        self.model.save(self.place / f"{when}.keras")
        self.clones.append(clone)


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Of a fit with a probe and of one without."""
    made = {}
    for which in ("plain", "watched"):
        place = tmp_path_factory.mktemp(which)
        taken, model = Copies(place), harm.net()
        kept = K.callbacks.ModelCheckpoint(str(place / "kept.keras"), verbose=0)
        probes = [ReluProbe(strict=True)] if which == "watched" else []
        left = harm.fitted(model, [taken, *probes, kept, taken], epochs=1)
        made[which] = (place, taken.clones, left)
    return made


FILES = ["kept.keras", "epoch.keras", "batch1.keras", "end1.keras", "export"]


def test_what_was_saved_or_exported_in_a_fit_loads_without_us_and_is_the_same(copies):
    paths = [str(copies[which][0] / name) for name in FILES for which in ("plain", "watched")]
    printed = stacks.output(LOAD, *paths).splitlines()[-len(paths) :]
    assert len(printed) == 2 * len(FILES)
    assert printed[::2] == printed[1::2]
    assert printed[0] != printed[4]  # after another step
    for path in copies["watched"][0].rglob("*"):
        assert path.is_dir() or b"relu_probe" not in path.read_bytes(), path


def test_clones_taken_in_a_fit_are_clean_and_the_same(copies):
    (_, plain, left), (_, watched, other) = copies.values()
    assert harm.same(left, other)
    assert len(plain) == len(watched) == 14
    for one, two in zip(plain, watched):
        assert all(map(np.array_equal, one.get_weights(), two.get_weights()))
        assert not [layer for layer in two.layers if "call" in vars(layer)]
        assert one.get_config()["layers"][1]["config"] == two.get_config()["layers"][1]["config"]
    clone = watched[2]
    clone.compile("sgd", "mse")
    probe = ReluProbe(strict=True)
    harm.fitted(clone, [probe], epochs=1)
    assert probe.report.samples == 24


# --- fits inside a fit ------------------------------------------------------------------------------------------------


class Inside(K.callbacks.Callback):
    """Calls `work` once, in a hook of the outer fit's first epoch."""

    def __init__(self, hook, work):
        super().__init__()
        self.hook, self.work, self.done = hook, work, False

    def on_train_batch_begin(self, batch, logs=None):
        self.meet("on_train_batch_begin", batch == 1)

    def on_epoch_end(self, epoch, logs=None):
        self.meet("on_epoch_end", epoch == 0)

    def meet(self, hook, here):
        if hook == self.hook and here and not self.done:
            self.done = True
            self.work()


def nested(hook, which, side, outer, inner):
    """What a fit leaves inside which another one was called, on the same model or on another."""
    model, x, y = harm.net(), *harm.data()
    second = model if which == "same" else harm.net()
    work = Inside(hook, lambda: second.fit(x[:8], y[:8], verbose=0, callbacks=list(inner)))
    harm.fitted(model, [work, *outer] if side == "before" else [*outer, work], epochs=3)
    return harm.state(model), harm.state(second)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("which", ["same", "another"])
@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_begin"])
def test_a_fit_inside_a_callback(hook, which, side):
    outer, inner = ReluProbe(strict=True), ReluProbe(strict=True)
    plain = nested(hook, which, side, [], [])
    assert all(map(harm.same, plain, nested(hook, which, side, [outer], [])))
    assert [report.samples for report in outer.reports] == [24] * 3
    assert all(map(harm.same, plain, nested(hook, which, side, [], [inner])))
    assert [report.samples for report in inner.reports] == [8]


@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_begin"])
def test_a_fit_of_another_model_inside_with_a_probe_in_each(hook):
    outer, inner = ReluProbe(strict=True), ReluProbe(strict=True)
    assert all(
        map(harm.same, nested(hook, "another", "before", [], []), nested(hook, "another", "before", [outer], [inner]))
    )
    assert [report.samples for report in outer.reports] == [24] * 3
    assert [report.samples for report in inner.reports] == [8]


@pytest.mark.parametrize("probes", ["two", "one"])
@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_begin"])
def test_a_fit_of_the_same_model_inside_with_a_probe_in_each_is_said(hook, probes):
    """Their counts are one; the outer one gives up, and says so."""
    outer = ReluProbe()
    inner = ReluProbe() if probes == "two" else outer
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watched = nested(hook, "same", "before", [outer], [inner])
    assert all(map(harm.same, nested(hook, "same", "before", [], []), watched))
    told = [str(w.message) for w in caught if "relu_probe" in str(w.message)]
    assert len(told) == 1
    assert "inside this one was counted in its place; expected a probe in one of them." in told[0]
    assert "counted in its place" in outer.report.incomplete
    if probes == "two":
        assert [report.samples for report in inner.reports] == [8]
        assert inner.report.incomplete == ""


# --- fits beside each other -------------------------------------------------------------------------------------------


def in_threads(*works):
    """All at once; what each gave."""
    given, gate = {}, threading.Barrier(len(works))

    def run(number, work):
        gate.wait()
        given[number] = work()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [given[number] for number in range(len(works))]


def test_two_models_trained_by_two_threads_at_once(tmp_path):
    """Full batches in their order: nothing is drawn while the threads run."""
    nets = [lambda: harm.net(rate=0.1), lambda: harm.net(rate=0.3)]
    args = {"epochs": 12, "batch_size": 8, "shuffle": False}
    alone, probes = [], [ReluProbe(tmp_path, name=f"alone{i}", strict=True) for i in range(2)]
    for net, probe in zip(nets, probes):
        alone.append(harm.fitted(net(), [probe], **args))
        assert harm.same(alone[-1], harm.fitted(net(), [], **args))
    models = [net() for net in nets]
    together = [ReluProbe(tmp_path, name=f"together{i}", strict=True) for i in range(2)]
    works = [lambda i=i: harm.fitted(models[i], [together[i]], **args) for i in range(2)]
    assert all(map(harm.same, alone, in_threads(*works)))
    for one, two in zip(probes, together):
        assert one.reports == two.reports
    assert probes[0].reports != probes[1].reports  # a mix-up would show
