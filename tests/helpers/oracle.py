"""The slow, obvious second implementation: every output and gradient as an array, counted by NumPy."""

from typing import Any

import numpy as np
import tensorflow as tf
from keras_version import LEGACY

from relu_probe.structure.relu_layers import find_relus


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
            if isinstance(output, tf.Tensor):  # Keras also calls layers on symbols, to learn their shapes
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
    nan = sum(_per_neuron(np.isnan(a), relu.axis) for a in outputs) > 0
    return {"active": active, "with_gradient": sum(passes) if reached else None, "positions": positions, "nan": nan}


def _below(relu: Any, a: np.ndarray) -> np.ndarray:
    return np.ones(a.shape, bool) if relu.ceiling is None else a != np.asarray(relu.ceiling, a.dtype)


def _per_neuron(mask: np.ndarray, axis: int) -> np.ndarray:
    neurons = np.moveaxis(mask, axis, -1).reshape(-1, mask.shape[axis])
    return np.array([sum(bool(v) for v in column) for column in neurons.T], np.int64)


def measure(
    model: Any, batches: list[tuple[Any, Any]], training: bool = False, count: Any = None
) -> dict[str, dict[str, Any]]:
    """What must be found in these batches: dL/da of the compiled loss at the output of every call of every layer."""
    count = count or counts
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
    return {relu.key: count(relu, outputs[relu.key], gradients[relu.key]) for relu in relus}


def train(model: Any, x: Any, y: Any, batch_size: int) -> dict[str, dict[str, Any]]:
    """What a fit must find: a fit with a `train_step` by hand, from which every array is taken out.

    By Keras's own loop, so that the graph is as in any other: a fused ReLU turns NaN into 0, and what comes after it goes
    on to fire; and whether NaN times 0 is 0, a kernel for batches of a known size decides otherwise than another.
    """
    steps: list[Any] = []
    model.train_step = lambda data: _step(model, steps, *data)
    model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0)
    return {
        relu.key: counts(relu, *([a for step in steps for a in step[relu.key][k]] for k in (0, 1)))
        for relu in find_relus(model)
    }


def _step(model: Any, steps: list[Any], x: Any, y: Any) -> dict[str, Any]:
    """Keeps each layer's outputs, and their gradients where a weight that is trained comes before them."""
    weights = model.trainable_variables
    with Recorder(model) as recorder, tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([weight if LEGACY else weight.value for weight in weights])
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
    gradients, updates = tape.gradient(loss, [recorder.outputs, weights])
    model.optimizer.apply_gradients(zip(updates, weights))
    found = {key: (outputs, gradients[key]) for key, outputs in recorder.outputs.items()}

    def keep(*arrays: Any) -> None:
        each = iter(arrays)
        steps.append(tf.nest.map_structure(lambda tensor: None if tensor is None else next(each), found))

    tf.numpy_function(keep, [tensor for tensor in tf.nest.flatten(found) if tensor is not None], [])
    return {"loss": loss}


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
