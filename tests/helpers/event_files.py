"""Event files, read back with TensorBoard's own reader."""

import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def events(directory):
    """tag -> [(step, value)], and the accumulator."""
    accumulator = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["tensors"]
    return {t: [(e.step, tf.make_ndarray(e.tensor_proto)) for e in accumulator.Tensors(t)] for t in tags}, accumulator


def points(directory, kind=EventAccumulator):
    """tag -> [(step, value)] as TensorBoard's own reader shows it."""
    reader = kind(str(directory), size_guidance={"tensors": 0})
    reader.Reload()
    found = {tag: reader.Tensors(tag) for tag in reader.Tags()["tensors"]}
    return {tag: [(e.step, tf.make_ndarray(e.tensor_proto)) for e in events] for tag, events in found.items()}


def seen(directory, kind=EventAccumulator):
    return [step for step, _ in points(directory / "relu_probe", kind)["dead_fraction"]]
