"""Training with the probe is bit-identical to training without it when XLA compiles both."""

import harm
import pytest
import zoo
from zoo import train_zoo

from relu_probe import ReluProbe


@pytest.mark.parametrize("name", list(zoo.rows()))
def test_zoo(name):
    """Two full batches: XLA compiles each shape separately, and compilation takes most of the time."""
    harm.assert_no_harm(
        lambda callbacks: train_zoo(name, callbacks, samples=2 * zoo.BATCH, jit_compile=True), [ReluProbe(strict=True)]
    )
