"""The pictures of layers, which share the frame around their life images."""

import numpy as np
import pytest

from relu_probe.tensorboard.life_picture import FOOT, LEFT, TOP, framed_life

pytestmark = pytest.mark.once
DARK, BRIGHT = (np.full((64, 510, 3), value, np.uint8) for value in (0, 200))


def test_nothing_of_a_picture_is_left_in_the_next():
    first = framed_life(DARK, "a_long_name", 7, [0, 1])
    second = framed_life(BRIGHT, "b", 7, [0, 1])
    np.testing.assert_array_equal(framed_life(DARK, "a_long_name", 7, [0, 1]), first)
    np.testing.assert_array_equal(second[TOP:-FOOT, LEFT : LEFT + 510], BRIGHT)
    assert (second[:TOP] == 255).sum() > (first[:TOP] == 255).sum()
    np.testing.assert_array_equal(second[TOP:, :LEFT], first[TOP:, :LEFT])


def test_each_picture_has_its_own_epochs():
    first, second = (framed_life(DARK, "a", 7, epochs)[TOP:-FOOT, :LEFT] for epochs in ([0, 1], [10, 11]))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
