"""Tests of the search for the axis of the neurons, operation by operation, on tensors with three axes."""

import inspect

import pytest
import tensorflow as tf

from relu_probe.counting import neuron_axis as search
from relu_probe.counting.neuron_axis import neuron_axis

MORE = {  # arguments of operations that have others than their input
    "Cast": {"DstT": tf.float64},
    "CheckNumerics": {"message": ""},
    "ClipByValue": {"clip_value_min": 0.0, "clip_value_max": 1.0},
    "EnsureShape": {"shape": [None, None, None]},
}


def applied(name, tensor):
    operation = getattr(tf.raw_ops, name)
    first = next(iter(inspect.signature(operation).parameters))
    found = operation(**{first: [tensor] if name == "IdentityN" else tensor}, **MORE.get(name, {}))
    return found[0] if isinstance(found, list) else found


def axis_behind(name, *, channels_first):
    """Returns the axis that is found behind an operation on the output of a convolution, or on its transpose."""
    with tf.Graph().as_default():
        images = tf.raw_ops.Placeholder(dtype=tf.float32, shape=[None, 7, 2])
        tensor = tf.nn.conv1d(images, tf.zeros((3, 2, 5)), 1, "SAME")
        return neuron_axis(applied(name, tf.transpose(tensor, (0, 2, 1)) if channels_first else tensor))


@pytest.mark.once
@pytest.mark.parametrize("name", search._UNARY)
def test_operations_that_work_element_by_element_move_no_axis(name, monkeypatch):
    assert axis_behind(name, channels_first=False) == -1
    assert axis_behind(name, channels_first=True) == 1
    monkeypatch.setattr(search, "_UNARY", ())  # the planted mistake: the search does not know them
    assert axis_behind(name, channels_first=False) is None
