"""Faults: a fit inside a fit, and two fits in two threads. Each trains and counts as if it were alone."""

import threading
import warnings
from functools import cache

import harm
import pytest
from harm import K

from relu_probe import ReluProbe

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
    """What an outer and an inner fit leave, of the same model or of two models."""
    model, x, y = harm.net(), *harm.data()
    second = model if which == "same" else harm.net()
    work = Inside(hook, lambda: second.fit(x[:8], y[:8], verbose=0, callbacks=list(inner)))
    harm.fitted(model, [work, *outer] if side == "before" else [*outer, work], epochs=3)
    return harm.state(model), harm.state(second)


@cache
def unwatched(hook, which):
    return nested(hook, which, "before", [], [])


CASES = [(hook, "same", side) for hook in ("on_epoch_end", "on_train_batch_begin") for side in ("before", "after")]
CASES += [("on_epoch_end", "another", "before"), ("on_train_batch_begin", "another", "after")]


@pytest.mark.parametrize(("hook", "which", "side"), CASES)
def test_a_fit_inside_a_callback(hook, which, side):
    outer, inner = ReluProbe(strict=True), ReluProbe(strict=True)
    plain = unwatched(hook, which)
    assert all(map(harm.same, plain, nested(hook, which, side, [outer], [])))
    assert [report.samples for report in outer.reports] == [24] * 3
    assert all(map(harm.same, plain, nested(hook, which, side, [], [inner])))
    assert [report.samples for report in inner.reports] == [8]


@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_begin"])
def test_a_fit_of_another_model_inside_with_a_probe_in_each(hook):
    outer, inner = ReluProbe(strict=True), ReluProbe(strict=True)
    assert all(map(harm.same, unwatched(hook, "another"), nested(hook, "another", "before", [outer], [inner])))
    assert [report.samples for report in outer.reports] == [24] * 3
    assert [report.samples for report in inner.reports] == [8]


@pytest.mark.parametrize("probes", ["two", "one"])
@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_begin"])
def test_a_fit_of_the_same_model_inside_with_a_probe_in_each_is_reported(hook, probes):
    """Both would share the counters, so the outer probe stops counting and warns."""
    outer = ReluProbe()
    inner = ReluProbe() if probes == "two" else outer
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watched = nested(hook, "same", "before", [outer], [inner])
    assert all(map(harm.same, unwatched(hook, "same"), watched))
    told = [str(w.message) for w in caught if "relu_probe" in str(w.message)]
    assert len(told) == 1
    assert "in a fit with a probe, which reset the counts of this fit, expected a probe in one of the two." in told[0]
    assert "which reset the counts of this fit" in outer.report.incomplete
    if probes == "two":
        assert [report.samples for report in inner.reports] == [8]
        assert inner.report.incomplete == ""


# --- fits in two threads ----------------------------------------------------------------------------------------------


def in_threads(*works):
    """Calls all functions at the same time, each in a thread, and returns their results."""
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
    """Without shuffling, no random numbers are drawn while the threads run."""
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
