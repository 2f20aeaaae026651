"""Faults of shapes, and a generator that raises: the user sees Keras's own error, and no probe is left behind."""

import harm
import numpy as np
import oracle
import pytest
from assertions import assert_counts
from faulty_data import FIXED, X, Y, assert_nothing_left, assert_same, assert_stopped, attempt, net
from keras_version import LEGACY

from relu_probe import ReluProbe, measure


def assert_next_fits_are_right(model, twin):
    """Asserts that the next fits of `model` are right. `twin` went through the same without a probe."""
    assert_nothing_left(model)
    probe = ReluProbe(strict=True)
    for callbacks in ([probe], []):
        assert_same(attempt(model, callbacks, epochs=1)[0], attempt(twin, [], epochs=1)[0])
    assert probe.report.samples == len(X)
    assert_nothing_left(model)


@pytest.mark.parametrize(
    ("x", "y"), [(X[:, :3], Y), (X, np.ones((24, 7, 2), "f")), (X, Y[:5])], ids=["x", "y", "sizes"]
)
def test_shapes_that_the_fit_refuses(x, y):
    """Keras's own error is raised. (After a first fit that fails, there is no optimizer, and Keras 3 may be unable to fit again.)"""
    model, twin, probe = net(), net(), ReluProbe(strict=True)
    for one in (model, twin):
        harm.fitted(one, [], epochs=1)
    left, told = attempt(model, [probe], x, y)
    assert_same(left, attempt(twin, [], x, y)[0])
    assert isinstance(left, Exception)
    assert (told, probe.reports) == ([], [])
    assert_next_fits_are_right(model, twin)


def test_data_of_a_wrong_shape_raises_before_the_first_step():
    model, text = (
        net(),
        r"found batches of shape \(\(None, 3\), \(None, 1\)\) \(x first\), expected x of \(None, 4\)",
    )
    for more in ({}, {"at_start": True}, {"strict": True}):
        with pytest.raises(ValueError, match=text + ".*Keras says: .*Input 0 .*incompatible with the layer"):
            harm.fitted(model, [ReluProbe(data=(X[:, :3], Y), **more)])
    assert_next_fits_are_right(model, net())


def test_data_whose_shape_only_a_batch_shows_to_be_wrong():
    """A batch of unknown size may have 7 samples. Eager steps are not traced."""
    why = "ValueError: the model cannot be run on the data: found batches of shape ((None, "
    assert_stopped(f"{why}4), (None, 7, 2)) (x first)", (X, np.ones((24, 7, 2), "f")), net)
    assert_stopped(f"{why}3), (None, 1)) (x first)", (X[:, :3], Y), lambda: net(run_eagerly=True))


def test_labels_of_another_rank_do_not_spoil_the_next_measurement():
    model = net()
    with pytest.raises(ValueError, match=r"Keras says: .*\[24,7,2\]"):
        measure(model, (X, np.ones((24, 7, 2), "f")))
    expected = oracle.measure(model, oracle.batches(X, Y, 8))["hidden"]
    for y in (Y, Y[:, 0], Y):
        assert_counts(measure(model, (X, y))["hidden"], expected)


def test_a_generator_that_raises_half_way():
    def generator():
        for start in (0, 8):
            yield X[start : start + 8], Y[start : start + 8]
        raise OSError("half-way")

    model, twin, probe = net(), net(), ReluProbe(strict=True)
    args = {"y": None, "steps_per_epoch": 3, **FIXED}
    left, told = attempt(model, [probe], generator(), **args)
    plain, _ = attempt(twin, [], generator(), **args)
    assert (told, probe.reports) == ([], [])
    assert "OSError: half-way" in str(left)
    assert type(left) is type(plain)
    assert harm.same(harm.state(model), harm.state(twin))
    assert not harm.same(harm.state(model), harm.state(net())) or LEGACY  # two steps were trained
    assert_next_fits_are_right(model, twin)
