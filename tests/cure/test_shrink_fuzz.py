"""`shrink` on random small models: predictions agree, and each dead neuron is gone or named."""

import dataclasses

import numpy as np
import pytest
from fuzz_checks import run
from hypothesis import Phase
from shrink_models import outputs

from relu_probe import measure, shrink
from relu_probe.cure.channel_flow import ChannelFlow


def agrees(case):
    case = dataclasses.replace(case, planted=[])  # without NaN and infinities
    model, x = case.model(), case.data()[0]
    try:
        found = shrink(model, x, batch_size=case.batch)
    except ValueError as error:  # a layer of the user's without a configuration
        if "cannot be made again from its configuration" not in str(error):
            raise
        return
    for a, b in zip(outputs(model, x), outputs(found.model, x)):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())
    dead = {key: set(np.flatnonzero(layer.dead)) for key, layer in measure(model, x).layers.items()}
    left = {key: {i for neurons in reasons.values() for i in neurons} for key, reasons in found.left.items()}
    assert all(left[key] <= dead[key] for key in left)
    after = {key: set(np.flatnonzero(layer.dead)) for key, layer in measure(found.model, x).layers.items()}
    # Keras names the layers that a layer of the user's makes anew in the smaller model.
    known = dead.keys() & found.report.layers.keys() & after.keys()
    assert all(len(after[key]) <= len(left.get(key, ())) for key in known)


def test_random_models(record_property):
    run(agrees, 4, record_property)


@pytest.mark.once
def test_a_planted_mistake_is_found(monkeypatch, record_property):
    """Units that only look as if nothing blocked them."""
    monkeypatch.setattr(ChannelFlow, "_check_constants", lambda *args: None)
    with pytest.raises((RuntimeError, AssertionError)):
        run(agrees, 8, record_property, phases=(Phase.generate,))
