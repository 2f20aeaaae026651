"""Our PNG files, read by TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

from relu_probe.tensorboard import png
from relu_probe.tensorboard.png import encode_png

pytestmark = pytest.mark.once


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 3), (256, 512, 3)])
def test_every_pixel_reads_back(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    read = tf.io.decode_png(encode_png(image)).numpy()
    np.testing.assert_array_equal(read, image)
    assert shape == (1, 1, 3) or not np.array_equal(read, image[::-1, ::-1])  # the planted mistake


@pytest.mark.parametrize("shared", [0, 1, 30, 40])
def test_images_that_share_their_last_rows_read_back(shared):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 50, 3)).astype(np.uint8)
    for kind in images:  # the rows of the second kind are not those of the first
        kind[:, 40 - shared :] = kind[0, 40 - shared :]
        for image in kind:
            np.testing.assert_array_equal(tf.io.decode_png(encode_png(image, shared)).numpy(), image)


def test_the_kept_rows_are_found_by_their_content(monkeypatch):
    first, second = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3)).astype(np.uint8)
    kept = png._deflated_foot(first[30:].tobytes())
    monkeypatch.setattr(png, "_deflated_foot", lambda lines: kept)  # the planted mistake: whatever was kept
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_png(encode_png(second, 10))
