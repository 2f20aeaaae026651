"""Constants are shared only where value and dtype are equal, and a graph has each once."""

import pytest
import tensorflow as tf

from relu_probe.counting.shared_constants import axes_of, shared_constant, zero_of

pytestmark = pytest.mark.any_keras


def test_a_graph_has_each_constant_once():
    image, row = tf.zeros((2, 3, 3, 4)), tf.zeros((2, 4))

    @tf.function(autograph=False)
    def constants():
        found = [axes_of(image), axes_of(image, without=-1), axes_of(image, without=1), axes_of(row), zero_of(image)]
        found += [shared_constant(0, tf.int32, image), shared_constant(7, tf.int32, image)]
        assert [id(axes_of(image)), id(zero_of(row))] == [id(found[0]), id(found[4])]
        return found

    values = [each.numpy().tolist() for each in constants()]
    assert values == [[0, 1, 2, 3], [0, 1, 2], [0, 2, 3], [0, 1], 0.0, 0, 7]
