"""Compiled by XLA, training with the probe is bit-identical to training without it."""

import harm
import pytest
import zoo
from zoo import train_zoo

from relu_probe import ReluProbe


@pytest.mark.parametrize("name", list(zoo.rows()))
def test_zoo(name):
    """Two whole batches: XLA compiles each shape anew, and that is what takes the time."""
    harm.assert_no_harm(
        lambda callbacks: train_zoo(name, callbacks, samples=2 * zoo.BATCH, jit_compile=True), [ReluProbe(strict=True)]
    )
