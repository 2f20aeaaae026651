"""The slow, obvious second implementation: every output and gradient as an array, counted by NumPy."""

from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.relus import find_relus


class Recorder:
    """Eager, batch by batch: keeps each counted layer's outputs, and dL/da from plain tapes."""

    def __init__(self, model: Any) -> None:
        self.relus = find_relus(model)
        self.outputs: dict[str, list[Any]] = {relu.key: [] for relu in self.relus}

    def __enter__(self) -> "Recorder":
        self._before = [(relu.layer, relu.layer.__dict__.get("call")) for relu in self.relus]
        for relu in self.relus:
            relu.layer.__dict__["call"] = self._recording(relu)
        return self

    def _recording(self, relu: Any) -> Any:
        call = relu.layer.call

        def recorded(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            if hasattr(output, "numpy"):  # Keras also calls layers on symbols, to learn their shapes
                output = tf.identity(output)
                self.outputs[relu.key].append(output)
            return output

        return recorded

    def __exit__(self, *error: Any) -> None:
        for layer, call in self._before:
            if call is None:
                del layer.__dict__["call"]
            else:
                layer.__dict__["call"] = call


def counts(relu: Any, outputs: list[Any], gradients: list[Any]) -> dict[str, Any]:
    """Of one layer, from the arrays of all calls; a gradient is None where no backward pass came."""
    active = sum(_per_neuron(np.asarray(a) > 0, relu.axis) for a in outputs)
    reached = any(g is not None for g in gradients)
    passes = [
        _per_neuron((np.asarray(g) != 0) & (np.asarray(a) > 0) & _below(relu, np.asarray(a)), relu.axis)
        for a, g in zip(outputs, gradients)
        if g is not None
    ]
    positions = sum(np.asarray(a).size // np.asarray(a).shape[relu.axis] for a in outputs)
    return {"active": active, "with_gradient": sum(passes) if reached else None, "positions": positions}


def _below(relu: Any, a: np.ndarray) -> np.ndarray:
    return np.ones(a.shape, bool) if relu.ceiling is None else a != np.asarray(relu.ceiling, a.dtype)


def _per_neuron(mask: np.ndarray, axis: int) -> np.ndarray:
    neurons = np.moveaxis(mask, axis, -1).reshape(-1, mask.shape[axis])
    return np.array([sum(bool(v) for v in column) for column in neurons.T], np.int64)


def measure(model: Any, batches: list[tuple[Any, Any]], training: bool = False) -> dict[str, dict[str, Any]]:
    """What must be found in these batches: dL/da of the compiled loss at the output of every call of every layer."""
    relus = find_relus(model)
    outputs: dict[str, list[Any]] = {relu.key: [] for relu in relus}
    gradients: dict[str, list[Any]] = {relu.key: [] for relu in relus}
    for x, y in batches:
        with Recorder(model) as recorder, tf.GradientTape() as tape:
            tape.watch([part for part in tf.nest.flatten(x) if part.dtype.is_floating])
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=training))
        for key, found in recorder.outputs.items():
            outputs[key] += found
        for key, found in zip(recorder.outputs, tape.gradient(loss, list(recorder.outputs.values()))):
            gradients[key] += found
    return {relu.key: counts(relu, outputs[relu.key], gradients[relu.key]) for relu in relus}


def batches(x: Any, y: Any, size: int) -> list[tuple[Any, Any]]:
    """Arrays cut into eager batches, the last one partial."""
    total = len(tf.nest.flatten(x)[0])
    parts = [slice(i, i + size) for i in range(0, total, size)]
    return [tf.nest.map_structure(lambda a, part=part: tf.constant(a[part]), (x, y)) for part in parts]


def assert_counts(layer: Any, expected: dict[str, Any]) -> None:
    """Exactly: `==` on integers."""
    np.testing.assert_array_equal(layer.active, expected["active"])
    assert layer.positions == expected["positions"]
    assert (layer.with_gradient is None) == (expected["with_gradient"] is None)
    if layer.with_gradient is not None:
        np.testing.assert_array_equal(layer.with_gradient, expected["with_gradient"])
