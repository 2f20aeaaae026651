"""ReLUs that are written as functions: counted as layers are, in every traced step, against brute force."""

import function_oracle
import pytest
from function_models import MODELS, build

from relu_probe import ReluProbe, measure


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_measured_functions_agree_with_brute_force(name, mixed):
    model, x, y, keys = build(name, mixed=mixed)
    expected = function_oracle.counts(model, x, y, keys, training=False)
    report = measure(model, (x, y), batch_size=5)
    function_oracle.assert_counted(report, expected)
    assert not report.unseen
    assert report.samples == len(x)


@pytest.mark.parametrize(("jit", "mixed"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("name", MODELS)
def test_trained_functions_agree_with_brute_force(name, jit, mixed):
    model, x, y, keys = build(name, mixed=mixed, jit_compile=jit)
    expected = function_oracle.counts(model, x, y, keys, training=True)
    model.fit(x, y, batch_size=len(x), verbose=0, callbacks=[probe := ReluProbe(strict=True)])
    function_oracle.assert_counted(probe.report, expected)
    assert not probe.report.unseen
