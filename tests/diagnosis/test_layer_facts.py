"""What a layer's own settings say about where its bias began."""

import numpy as np
import pytest
import tensorflow as tf

from relu_probe.diagnosis.layer_facts import initial_offset

K, L = tf.keras, tf.keras.layers


@pytest.mark.parametrize(
    ("start", "expected"),
    [(0.0, 0.0), (-9.0, -9.0), ([-9.0, -1.0], -1.0), ([0.5, 1.0], 1.0), ([-9.0, 1.0], None)],
)
def test_an_array_that_starts_some_neurons_below_zero_does_not_say_where_all_began(start, expected):
    """Else a neuron that began at -9 would be said to have fallen there. Keras 3 does not tell an array at all."""
    layer = L.Dense(2, bias_initializer=K.initializers.Constant(np.array(start) if isinstance(start, list) else start))
    told = isinstance(layer.bias_initializer.get_config()["value"], (float, np.ndarray))
    assert initial_offset(layer) == (expected if told else None)
