"""A slow and obvious second implementation: NumPy counts every output and gradient, as arrays."""

import threading
from typing import Any

import numpy as np
import tensorflow as tf
from keras_version import LEGACY

from relu_probe.structure.relu_layers import find_relus


class Recorder:
    """Context manager that keeps the outputs of all calls of each counted layer."""

    def __init__(self, model: Any) -> None:
        self.relus, self.thread = find_relus(model), threading.get_ident()
        self.outputs: dict[str, list[Any]] = {relu.key: [] for relu in self.relus}
        self.clipped: dict[str, list[Any]] = {
            relu.key: [] for relu in self.relus
        }  # where `clipping` stops the gradient

    def __enter__(self) -> "Recorder":
        clips = [(relu, layer) for relu in self.relus if (layer := clipping(relu)) is not None]
        layers = {id(layer): layer for layer in [relu.layer for relu in self.relus] + [layer for _, layer in clips]}
        self._before = [(layer, layer.__dict__.get("call")) for layer in layers.values()]
        for relu, layer in clips:
            layer.__dict__["call"] = self._recording_input(relu, layer)
        for relu in self.relus:
            relu.layer.__dict__["call"] = self._recording(relu)
        return self

    def gradients(self, key: str, found: list[Any]) -> list[Any]:
        """Returns the gradients at the outputs of a layer, without those that stop at a bound."""
        stopped = self.clipped[key] or [None] * len(found)
        dense = [None if g is None else tf.convert_to_tensor(g) for g in found]  # of IndexedSlices
        return [
            g if where is None or g is None else tf.where(where, tf.zeros_like(g), g)
            for where, g in zip(stopped, dense)
        ]

    def _recording_input(self, relu: Any, layer: Any) -> Any:
        call = layer.call

        def recorded(z: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(z, tf.Tensor) and tf.executing_eagerly():
                self.clipped[relu.key].append(z > layer.max_value)
            return call(z, *args, **kwargs)

        return recorded

    def _recording(self, relu: Any) -> Any:
        call = relu.layer.call

        def recorded(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            if threading.get_ident() != self.thread:
                return output
            if isinstance(output, tf.Tensor):  # Keras also calls layers on symbolic tensors, to infer shapes
                if not tf.executing_eagerly() and (bounding := clipping(relu)) is not None:
                    # Not z: another reader of z would undo TensorFlow's fused ReLU, which turns NaN into 0.
                    self.clipped[relu.key].append(_input_of_minimum(output) > bounding.max_value)
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
    """Returns the counts of one layer from the outputs and gradients of all its calls.

    Args:
        relu: the layer, as `find_relus` returns it.
        outputs: an array for each call.
        gradients: dL/da for each call; None if no gradient reached the call.
    """
    active = sum(_per_neuron(np.asarray(a) > 0, relu) for a in outputs)
    reached = any(g is not None for g in gradients)
    passes = [
        _per_neuron((np.asarray(g) != 0) & (np.asarray(a) > 0) & _below(relu, np.asarray(a)), relu)
        for a, g in zip(outputs, gradients)
        if g is not None
    ]
    positions = sum(len(_neurons_last(np.asarray(a), relu)) for a in outputs)
    nan = sum(_per_neuron(np.isnan(a), relu) for a in outputs) > 0
    return {"active": active, "with_gradient": sum(passes) if reached else None, "positions": positions, "nan": nan}


def _below(relu: Any, a: np.ndarray) -> np.ndarray:
    if relu.ceiling is None or clipping(relu) is not None:
        return np.ones(a.shape, bool)
    return a != np.asarray(relu.ceiling, a.dtype)


def _input_of_minimum(output: tf.Tensor) -> tf.Tensor:
    """Returns the input of the operation that bounds the output of a ReLU in a graph."""
    op = output.op
    while op.type != "Minimum":
        op = op.inputs[0].op
    return op.inputs[0]


def clipping(relu: Any) -> Any:
    """Returns the ReLU layer with a bound other than 6 that a layer is, or has as its activation; None if there is none.

    It passes a gradient on where z equals the bound; ReLU6 does not.
    """
    for layer in (relu.layer, getattr(relu.layer, "activation", None)):
        if isinstance(layer, tf.keras.layers.ReLU) and layer.max_value not in (None, 6):
            return layer
    return None


def _per_neuron(mask: np.ndarray, relu: Any) -> np.ndarray:
    return np.array([sum(bool(v) for v in column) for column in _neurons_last(mask, relu).T], np.int64)


def _neurons_last(values: np.ndarray, relu: Any) -> np.ndarray:
    """Returns `(positions, neurons)`. The part of the model that made the layer says which axes are the neurons."""
    axes = vars(relu.layer).get("neuron_axes", (-1,))
    neurons = int(np.prod([values.shape[axis] for axis in axes]))
    return np.moveaxis(values, axes, range(-len(axes), 0)).reshape(values.size // max(neurons, 1), neurons)


def _samples(outputs: list[list[Any]], sizes: list[int]) -> int:
    """Returns the number of samples: of each step, those of the largest call; time may be folded into the rows.

    Args:
        outputs: for each step, the outputs of all calls.
        sizes: the number of samples in the batch of each step.
    """
    return sum(max((min(len(a), size) for a in calls), default=0) for calls, size in zip(outputs, sizes))


def measure(
    model: Any, batches: list[tuple[Any, Any]], training: bool = False, count: Any = None
) -> dict[str, dict[str, Any]]:
    """Returns the expected counts of all layers in these batches, from dL/da of the compiled loss, eagerly."""
    count = count or counts  # looked up now: tests plant mistakes there
    relus = find_relus(model)
    outputs: dict[str, list[Any]] = {relu.key: [] for relu in relus}
    gradients: dict[str, list[Any]] = {relu.key: [] for relu in relus}
    by_step: dict[str, list[Any]] = {relu.key: [] for relu in relus}
    sizes = [len(tf.nest.flatten(y)[0]) for _, y in batches]
    for x, y in batches:
        with Recorder(model) as recorder, tf.GradientTape() as tape:
            tape.watch([part for part in tf.nest.flatten(x) if part.dtype.is_floating])
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=training))
        for key, found in recorder.outputs.items():
            outputs[key] += found
            by_step[key].append(found)
        for key, found in zip(recorder.outputs, tape.gradient(loss, list(recorder.outputs.values()))):
            gradients[key] += recorder.gradients(key, found)
    found = {relu.key: count(relu, outputs[relu.key], gradients[relu.key]) for relu in relus}
    if all(isinstance(each, dict) for each in found.values()):
        found = {key: each | {"samples": _samples(by_step[key], sizes)} for key, each in found.items()}
    return found


def train(model: Any, x: Any, y: Any, batch_size: int) -> dict[str, dict[str, Any]]:
    """Returns the expected counts of a fit, by a fit whose own `train_step` copies every array out of the graph.

    It uses Keras's own loop, so that TensorFlow builds the same graph: a fused ReLU turns NaN into 0, so that the layers after
    it stay active; and kernels for a known batch size may differ from others in whether NaN times 0 is 0.
    """
    steps: list[Any] = []
    model.train_step = lambda data: _step(model, steps, *data)
    model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0)
    total = len(tf.nest.flatten(y)[0])
    sizes = [min(batch_size, total - i) for i in range(0, total, batch_size)]
    return {
        relu.key: {"samples": _samples([step[relu.key][0] for step in steps], sizes)}
        | counts(relu, *([a for step in steps for a in step[relu.key][k]] for k in (0, 1)))
        for relu in find_relus(model)
    }


def _step(model: Any, steps: list[Any], x: Any, y: Any) -> dict[str, Any]:
    """Keeps the outputs of each layer, and their gradients if a trained weight comes before the layer."""
    weights = model.trainable_variables
    with Recorder(model) as recorder, tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([weight if LEGACY else weight.value for weight in weights])
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
    gradients, updates = tape.gradient(loss, [recorder.outputs, weights])
    model.optimizer.apply_gradients(zip(updates, weights))
    found = {key: (outputs, recorder.gradients(key, gradients[key])) for key, outputs in recorder.outputs.items()}

    def keep(*arrays: Any) -> None:
        each = iter(arrays)
        steps.append(tf.nest.map_structure(lambda tensor: None if tensor is None else next(each), found))

    tf.numpy_function(keep, [tensor for tensor in tf.nest.flatten(found) if tensor is not None], [])
    return {"loss": loss}


def batches(x: Any, y: Any, size: int) -> list[tuple[Any, Any]]:
    """Returns the arrays cut into eager batches; the last one may be a partial one."""
    total = len(tf.nest.flatten(x)[0])
    parts = [slice(i, i + size) for i in range(0, total, size)]
    return [tf.nest.map_structure(lambda a, part=part: tf.constant(a[part]), (x, y)) for part in parts]
