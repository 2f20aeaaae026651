"""What flowed where? The calls of a model's layers on one batch, as they happened.

Eager tensors are told apart by identity: what a layer is called on is the very tensor that another one gave. So nothing
need be known of how the model was written, and nothing is guessed: a tensor that no layer gave has no producer.
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
    """One call of a layer. `visible`: everything that happens around it is recorded too."""

    layer: Any
    inputs: list[tf.Tensor]
    output: tf.Tensor
    visible: bool


class CallTrace:
    """The calls of one batch in their order, and the gradient that left the loss."""

    def __init__(self) -> None:
        self.calls: list[TracedCall] = []
        self.inputs: list[tf.Tensor] = []  # of the whole model
        self.outputs: list[tf.Tensor] = []
        self.left_loss: dict[int, tf.Tensor] = {}  # index of the output -> dL/dy of its shape
        self._producer: dict[int, TracedCall] = {}

    def producer(self, tensor: tf.Tensor) -> TracedCall | None:
        return self._producer.get(id(tensor))

    def consumers(self, tensor: tf.Tensor) -> list[TracedCall]:
        return [call for call in self.calls if any(t is tensor for t in call.inputs)]

    def of(self, layer: Any) -> list[TracedCall]:
        return [call for call in self.calls if call.layer is layer]

    def output_index(self, tensor: tf.Tensor) -> int | None:
        return next((i for i, output in enumerate(self.outputs) if output is tensor), None)

    @property
    def whole(self) -> bool:
        """Whether all tensors are accounted for: none was cast or made up between two layers that are visible."""
        known = {id(t) for t in self.inputs} | self._producer.keys()
        return all(id(t) in known for call in self.calls if call.visible for t in call.inputs if t.dtype.is_floating)

    def _record(self, layer: Any, visible: bool, args: Any, result: Any) -> Any:
        inputs, outputs = _tensors(args), _tensors(result)
        if len(outputs) == 1 and any(t is outputs[0] for t in inputs):
            return result  # Dropout in inference hands on what it got
        for output in outputs:
            call = TracedCall(layer, inputs, output, visible and len(outputs) == 1)
            self.calls.append(call)
            self._producer.setdefault(id(output), call)
        return result

    def _model_called(self, args: Any, result: Any) -> Any:
        self.inputs, self.outputs = _tensors(args), _tensors(result)
        watched = [self._watched(i, output) for i, output in enumerate(self.outputs)]
        return tf.nest.pack_sequence_as(result, watched) if len(watched) == len(tf.nest.flatten(result)) else result

    def _watched(self, index: int, output: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def identity(y: tf.Tensor) -> Any:
            def backward(gradient: Any) -> Any:
                self.left_loss[index] = tf.convert_to_tensor(gradient)
                return gradient

            return tf.identity(y), backward

        return identity(output)


@contextmanager
def recorded(model: Any) -> Iterator[CallTrace]:
    """Records what an eager call of `model` inside the block does."""
    flow = CallTrace()
    with ExitStack() as stack:
        for layer, visible in visible_layers(model):
            stack.enter_context(_wrapped(layer, partial(flow._record, layer, visible)))
        stack.enter_context(_wrapped(model, flow._model_called))
        yield flow


def _wrapped(layer: Any, seen: Callable[[Any, Any], Any]) -> AbstractContextManager[None]:
    """Has `seen(arguments, result)` decide what a call of the layer gives."""
    call = layer.call

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return seen((args, kwargs), call(*args, **kwargs))

    return patched(layer, "call", wrapper)


def _tensors(value: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(value) if isinstance(leaf, tf.Tensor)]


def over_neurons(reduce: Any, values: Any, axis: int) -> Any:
    """`reduce` over all axes but that of the neurons: `(neurons,)`."""
    values = np.asarray(values)
    return reduce(values, axis=tuple(i for i in range(values.ndim) if i != axis % values.ndim))
