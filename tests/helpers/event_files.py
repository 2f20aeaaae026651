"""Event files, read with TensorBoard's own reader."""

import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def events(directory, kind=EventAccumulator):
    """Returns `{tag: [(step, value), ...]}` of all tensor summaries, and the reader."""
    reader = kind(str(directory), size_guidance={"tensors": 0})
    reader.Reload()
    found = {tag: reader.Tensors(tag) for tag in reader.Tags()["tensors"]}
    return {tag: [(e.step, tf.make_ndarray(e.tensor_proto)) for e in events] for tag, events in found.items()}, reader


def points(directory, kind=EventAccumulator):
    """Returns `{tag: [(step, value), ...]}` of all tensor summaries."""
    return events(directory, kind)[0]


def epochs_written(log_dir, kind=EventAccumulator):
    """Returns the steps of the model's `dead_fraction` in the default run directory."""
    return [step for step, _ in points(log_dir / "relu_probe", kind)["dead_fraction"]]
