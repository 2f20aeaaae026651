"""Planted mistakes: the fuzz test fails within a few cases against an oracle that is wrong."""

import fuzz
import numpy as np
import oracle
import pytest
from fuzz_checks import measured, run, trained
from hypothesis import Phase

pytestmark = pytest.mark.once


def assert_refused(check):
    """`check` fails on one of 16 random cases."""
    with pytest.raises(AssertionError):
        run(check, 16, lambda *_: None, phases=[Phase.generate])


def _counting(fires, passes=None, nan=np.isnan):
    """Returns a wrong `oracle.counts`: what counts as active, as with gradient, and as NaN."""

    def counts(relu, outputs, gradients):
        def each(mask, arrays):
            return sum(oracle._per_neuron(mask(np.asarray(a)), relu) for a in arrays if a is not None)

        found = COUNTS(relu, outputs, gradients)
        found |= {"active": each(fires, outputs), "nan": each(nan, outputs) > 0}
        if passes is not None and found["with_gradient"] is not None:
            found["with_gradient"] = each(passes, gradients)
        return found

    return counts


COUNTS = oracle.counts
MISCOUNTED = {
    "counting >= 0": _counting(lambda a: a >= 0),
    "dL/da for dL/dz": _counting(lambda a: a > 0, lambda g: g != 0),
    "NaN counts as active": _counting(lambda a: ~(a <= 0)),
    "NaN is not seen": _counting(lambda a: a > 0, nan=lambda a: np.zeros(a.shape, bool)),
}


@pytest.mark.parametrize(
    ("check", "mistake"), [(measured, name) for name in MISCOUNTED] + [(trained, name) for name in list(MISCOUNTED)[:2]]
)
def test_a_wrong_count_is_found(check, mistake, monkeypatch):
    monkeypatch.setattr(oracle, "counts", MISCOUNTED[mistake])
    assert_refused(check)


def test_a_wrong_axis_is_found(monkeypatch):
    """The planted mistake takes the last axis for the neurons of every layer."""
    monkeypatch.setattr(oracle, "_neurons_last", lambda values, relu: values.reshape(-1, values.shape[-1]))
    assert_refused(measured)


@pytest.mark.parametrize("part", ["on_one_sample", "on_a_mask"])
def test_samples_that_a_layer_did_not_see_are_found(part, monkeypatch):
    """The planted mistake takes all samples of the batch for those of every layer."""
    case = fuzz.Case((3,), [(part, "relu", 2)], outputs=1, samples=7, batch=4, planted=[], empty=[], seed=0)
    measured(case)
    monkeypatch.setattr(oracle, "_samples", lambda outputs, sizes: sum(sizes))
    with pytest.raises(AssertionError):
        measured(case)


def _still(model, *data):
    model.optimizer.apply_gradients = lambda *_: None
    return oracle.train(model, *data)


def _short(model, x, y, size):
    cut = max(1, len(x) - size)
    return oracle.train(model, x[:cut], [part[:cut] for part in y], size)


MISTRAINED = {
    "a dropped last batch": _short,
    "weights that stand still": _still,
    "an inference": lambda model, x, y, size: oracle.measure(model, oracle.batches(x, y, size)),
}


@pytest.mark.parametrize("mistake", list(MISTRAINED))
def test_a_wrong_training_is_found(mistake):
    assert_refused(lambda case: trained(case, MISTRAINED[mistake]))


def test_a_nan_in_the_weights_that_is_not_looked_for_is_found():
    assert_refused(lambda case: trained(case, lost=lambda _, neurons: np.zeros(neurons, bool)))


def test_a_batch_that_is_not_measured_is_found():
    assert_refused(
        lambda case: measured(case, lambda model, all_of: oracle.measure(model, all_of[: len(all_of) - 1 or 1]))
    )
