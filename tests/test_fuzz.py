"""Random small models on random data: `measure` and a fit count what the oracle counts, and do no harm.

`pytest tests/test_fuzz.py --hypothesis-profile=long` runs 300 cases, other ones each time.
"""

import fuzz
import harm
import numpy as np
import oracle
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings

from relu_probe import ReluProbe, Report, measure

LONG = settings.get_profile("long")
CASES = LONG.max_examples if settings.default.max_examples == LONG.max_examples else 16


def run(check, cases, record_property, phases=(Phase.generate, Phase.shrink)):
    """`check` on so many cases; the summary says how many were run, and how many failed (the smallest is shown)."""
    done = {"run": 0, "failed": 0}

    @settings(
        max_examples=cases,
        derandomize=cases < LONG.max_examples // 4,  # in CI the same cases each time
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
    for layer in report.layers.values():
        assert (layer.active >= 0).all()
        assert (layer.active <= layer.positions).all()
        if layer.with_gradient is not None:
            assert (layer.with_gradient >= 0).all()
            assert (layer.with_gradient <= layer.active).all()
            assert layer.zero_gradient[layer.dead].all()


def measured(case, count=oracle.measure):
    model, (x, y) = case.model(), case.data()
    report, expected = measure(model, (x, y), batch_size=case.batch), count(model, oracle.batches(x, y, case.batch))
    assert list(report) == list(expected)
    for key, layer in report.layers.items():
        oracle.assert_counts(layer, expected[key])
    assert_laws(report)
    cut = case.samples // 2 // case.batch * case.batch  # at a batch's end: sums of extremes depend on their order
    shards = [(x[:cut], y[:cut]), (x[cut:], y[cut:])] if cut else [(x, y)]
    total = sum((measure(model, shard, batch_size=case.batch) for shard in shards), Report.empty())
    for key, layer in report.layers.items():
        assert total[key].positions == layer.positions
        for name in ("active", "with_gradient", "nan"):
            np.testing.assert_array_equal(getattr(total[key], name), getattr(layer, name))


def trained(case):
    """The weights stand still: a rate of zero; with nothing planted, for 0 times an infinite gradient is NaN."""
    model, (x, y), probe = case.model(), case.data(planted=False), ReluProbe(strict=True)
    expected = oracle.measure(model, oracle.batches(x, y, case.batch), training=True)
    model.fit(x, y, batch_size=case.batch, shuffle=False, verbose=0, callbacks=[probe])
    assert_laws(probe.report)
    assert list(probe.report) == list(expected)
    for key, layer in probe.report.layers.items():
        assert layer.positions == expected[key]["positions"]
        if not case.random:
            oracle.assert_counts(layer, expected[key])


def unharmed(case):
    x, y = case.data()
    harm.assert_no_harm(
        lambda callbacks: harm.fitted(case.model(1e-4), callbacks, x, y, epochs=1, batch_size=case.batch),
        [ReluProbe(strict=True)],
    )


@pytest.mark.parametrize(("check", "share"), [(measured, 1), (trained, 2), (unharmed, 4)])
def test_random_models(check, share, record_property):
    run(check, max(1, CASES // share), record_property)


@pytest.mark.parametrize(
    "mistake", ["counting >= 0", "dL/da for dL/dz", "a dropped last batch", "NaN counts as active"]
)
def test_a_wrong_count_is_found(mistake, monkeypatch):
    """The same fuzz test, against an oracle with a planted mistake."""

    def wrong(model, batches):
        return oracle.measure(model, batches[: max(1, len(batches) - 1)] if "batch" in mistake else batches)

    def planted(case):
        measured(case, wrong)

    monkeypatch.setattr(oracle, "counts", PLANTED.get(mistake, COUNTS))
    with pytest.raises(AssertionError):
        run(planted, 16, lambda *_: None, phases=[Phase.generate])


def _counting(fires, passes):
    def counts(relu, outputs, gradients):
        found = COUNTS(relu, outputs, gradients)
        found["active"] = sum(oracle._per_neuron(fires(np.asarray(a)), relu.axis) for a in outputs)
        if passes is not None and found["with_gradient"] is not None:
            masks = [passes(np.asarray(g)) for g in gradients if g is not None]
            found["with_gradient"] = sum(oracle._per_neuron(mask, relu.axis) for mask in masks)
        return found

    return counts


COUNTS = oracle.counts
PLANTED = {
    "counting >= 0": _counting(lambda a: a >= 0, None),
    "dL/da for dL/dz": _counting(lambda a: a > 0, lambda g: g != 0),
    "NaN counts as active": _counting(lambda a: ~(a <= 0), None),
}
