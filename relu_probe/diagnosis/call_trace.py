"""A trace of the calls of a model's layers on one batch.

Eager tensors are told apart by identity: a layer is called on the very tensor that another layer returned. So the trace
needs no knowledge of how the model was written, and guesses nothing: a tensor that no layer returned has no producer.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.structure.keras_layers import visible_layers
from relu_probe.utils.instance_patch import patched


class TracedCall(NamedTuple):
    """One call of a layer. `visible`: everything that happens around the call is recorded too."""

    layer: Any
    inputs: list[tf.Tensor]
    output: tf.Tensor
    visible: bool


class CallTrace:
    """The calls of one batch in their order, and the gradients of the loss with respect to the model's outputs."""

    def __init__(self) -> None:
        self.calls: list[TracedCall] = []
        self.inputs: list[tf.Tensor] = []  # of the model
        self.outputs: list[tf.Tensor] = []
        self.loss_gradients: dict[int, tf.Tensor] = {}  # index of the output -> dL/dy, with the shape of the output
        self._producers: dict[int, TracedCall] = {}

    def producer(self, tensor: tf.Tensor) -> TracedCall | None:
        """The call that returned the tensor, None if no layer did."""
        return self._producers.get(id(tensor))

    def consumers(self, tensor: tf.Tensor) -> list[TracedCall]:
        """The calls that received the tensor."""
        return [call for call in self.calls if any(t is tensor for t in call.inputs)]

    def calls_of(self, layer: Any) -> list[TracedCall]:
        """The calls of one layer; several if it is shared."""
        return [call for call in self.calls if call.layer is layer]

    def output_index(self, tensor: tf.Tensor) -> int | None:
        """The index of the tensor among the model's outputs, None if it is not an output."""
        return next((i for i, output in enumerate(self.outputs) if output is tensor), None)

    @property
    def complete(self) -> bool:
        """Whether every tensor has a known origin: none was cast or computed between two visible layers."""
        known = {id(t) for t in self.inputs} | self._producers.keys()
        return all(id(t) in known for call in self.calls if call.visible for t in call.inputs if t.dtype.is_floating)

    def _record(self, layer: Any, visible: bool, args: Any, result: Any) -> Any:
        inputs, outputs = _tensors_in(args), _tensors_in(result)
        if len(outputs) == 1 and any(t is outputs[0] for t in inputs):
            return result  # in inference Dropout returns its own input
        for output in outputs:
            call = TracedCall(layer, inputs, output, visible and len(outputs) == 1)
            self.calls.append(call)
            self._producers.setdefault(id(output), call)
        return result

    def _record_model(self, args: Any, result: Any) -> Any:
        self.inputs, self.outputs = _tensors_in(args), _tensors_in(result)
        watched = [self._watch_gradient(i, output) for i, output in enumerate(self.outputs)]
        return tf.nest.pack_sequence_as(result, watched) if len(watched) == len(tf.nest.flatten(result)) else result

    def _watch_gradient(self, index: int, output: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def identity(y: tf.Tensor) -> Any:
            def backward(gradient: Any) -> Any:
                self.loss_gradients[index] = tf.convert_to_tensor(gradient)
                return gradient

            return tf.identity(y), backward

        return identity(output)


@contextmanager
def recorded(model: Any) -> Iterator[CallTrace]:
    """Records what an eager call of `model` inside the block does."""
    trace = CallTrace()
    with ExitStack() as stack:
        for layer, visible in visible_layers(model):
            stack.enter_context(_recording(layer, partial(trace._record, layer, visible)))
        stack.enter_context(_recording(model, trace._record_model))
        yield trace


def _recording(layer: Any, record: Callable[[Any, Any], Any]) -> AbstractContextManager[None]:
    """Makes a call of the layer return `record(arguments, result)`."""
    call = layer.call

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return record((args, kwargs), call(*args, **kwargs))

    return patched(layer, "call", wrapper)


def _tensors_in(value: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(value) if isinstance(leaf, tf.Tensor)]


def reduce_per_neuron(reduce: Any, values: Any, axis: int) -> Any:
    """`(neurons,)`: `reduce`, such as `np.max`, over all axes of `values` except the neurons' `axis`."""
    values = np.asarray(values)
    return reduce(values, axis=tuple(i for i in range(values.ndim) if i != axis % values.ndim))
