"""Mean and deviation of a layer's inputs, also of inputs that are not finite."""

import numpy as np
import pytest

from relu_probe.diagnosis.input_moments import InputMoments

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    "rows", [[[1.0, np.inf], [2.0, np.inf]], [[np.nan, 1.0], [0.0, 3.0]], [[1e200, 1.0], [0.0, 3.0]]]
)
def test_inputs_that_are_not_finite_give_nan_and_no_warning(rows):
    with np.errstate(all="ignore"):
        inputs = np.array(rows)
        sums = inputs.sum(0), (inputs**2).sum(0)
    assert np.isnan(InputMoments(2, *sums, np.ones(2, bool)).offset)
    assert np.isnan(InputMoments(2, *sums, np.ones(2, bool)).size) or np.isfinite(sums[1]).all()
    assert np.isnan(InputMoments(2, *sums, np.zeros(2, bool)).size)
    assert InputMoments(2, np.array([2.0]), np.array([4.0]), np.ones(1, bool)).offset == 1.0
    assert InputMoments(2, np.array([2.0, 9.0]), np.array([8.0, 99.0]), np.array([True, False])).size == 2.0
