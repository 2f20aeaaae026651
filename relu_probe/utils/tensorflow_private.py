"""What goes with the model? TensorFlow keeps each custom gradient for ever, and so the graph it was traced in."""

import weakref
from contextlib import suppress
from typing import Any

import tensorflow as tf


def forget_with(model: Any, output: Any) -> None:
    """Takes the custom gradient that made `output` off TensorFlow's list, once the model is gone."""
    if model is None or tf.executing_eagerly():
        return
    with suppress(ValueError):  # an operation without one
        name = output.op.get_attr("_gradient_op_type").decode()
        weakref.finalize(model, _forget, name).atexit = False


def _forget(name: str) -> None:
    with suppress(ImportError, AttributeError):  # private: where it moves, the graph of a dead model stays in memory
        from tensorflow.python.framework import ops

        ops.gradient_registry._registry.pop(name, None)


def import_event(writer: Any, event: Any) -> None:
    """Writes an event of any kind to the file of a `tf.summary` writer.

    Args:
        writer: what `tf.summary.create_file_writer` returned.
        event: an `Event` of TensorBoard's protocol buffers.

    Raises:
        tf.errors.OpError: the file cannot be written.
    """
    tf.raw_ops.ImportEvent(writer=writer._resource, event=event.SerializeToString())
