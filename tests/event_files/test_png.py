"""Our PNG files, read by TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

from relu_probe.tensorboard.png import encode_png

pytestmark = pytest.mark.once


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 3), (256, 512, 3)])
def test_every_pixel_reads_back(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    read = tf.io.decode_png(encode_png(image)).numpy()
    np.testing.assert_array_equal(read, image)
    assert shape == (1, 1, 3) or not np.array_equal(read, image[::-1, ::-1])  # the planted mistake
