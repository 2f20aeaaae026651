"""A trace of the calls of a model's layers in one step.

Tensors, symbolic ones as well as eager ones, are told apart by identity: a layer is called on the very tensor that another layer
returned. So the trace needs no knowledge of how the model was written, and guesses nothing: a tensor that no layer returned has no
producer.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from relu_probe.structure.keras_layers import input_casts, logits_of, visible_layers
from relu_probe.utils.instance_patch import patched


class TracedCall(NamedTuple):
    """One call of a layer. `visible`: everything that happens around the call is recorded too."""

    layer: Any
    inputs: list[tf.Tensor]
    output: tf.Tensor
    visible: bool


class CallTrace:
    """The calls of one step in their order. A call in another graph than the step's, such as a loop's, is only noted."""

    def __init__(self) -> None:
        self.calls: list[TracedCall] = []
        self.inputs: list[tf.Tensor] = []  # of the model
        self.outputs: list[tf.Tensor] = []
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        self._hidden: set[int] = set()  # ids of layers that were called in another graph
        self._producers: dict[int, TracedCall] = {}
        self._consumers: dict[int, list[TracedCall]] = {}
        self._passing: dict[int, list[Any]] = {}  # id of a tensor -> the layers that received and returned it
        self._casts: dict[
            int, tuple[tf.Tensor, tf.Tensor]
        ] = {}  # id of a cast tensor -> that tensor, and what was cast

    def producer(self, tensor: tf.Tensor) -> TracedCall | None:
        """The call that returned the tensor, None if no layer did."""
        return self._producers.get(id(tensor))

    def consumers(self, tensor: tf.Tensor) -> list[TracedCall]:
        """The calls that received the tensor."""
        return self._consumers.get(id(tensor), [])

    def passing(self, tensor: tf.Tensor) -> list[Any]:
        """The layers that received the tensor and returned it as it was, such as an ActivityRegularization."""
        return self._passing.get(id(tensor), [])

    def calls_of(self, layer: Any) -> list[TracedCall]:
        """The calls of one layer; several if it is shared, none if some are not in the trace."""
        return [] if id(layer) in self._hidden else [call for call in self.calls if call.layer is layer]

    def output_index(self, tensor: tf.Tensor) -> int | None:
        """The index of the tensor among the model's outputs, None if it is not an output."""
        return next((i for i, output in enumerate(self.outputs) if output is tensor), None)

    def loss_inputs(self) -> list[list[tf.Tensor]]:
        """For each output the tensors by which a loss may be differentiated: the output itself, and its logits.

        Keras computes a crossentropy from the logits where it finds them, and then no gradient arrives at the output.
        """
        return [[t for t in (output, logits_of(output)) if t is not None] for output in self.outputs]

    @property
    def complete(self) -> bool:
        """Whether every tensor has a known origin: none was cast or computed between two visible layers."""
        known = {id(t) for t in self.inputs} | self._producers.keys()
        return all(id(t) in known for call in self.calls if call.visible for t in call.inputs if t.dtype.is_floating)

    @tf.autograph.experimental.do_not_convert
    def record(self, layer: Any, visible: bool, args: Any, result: Any) -> None:
        """Notes a call of a layer."""
        inputs, outputs = _tensors_in(args), _tensors_in(result)
        if len(outputs) == 1 and any(t is outputs[0] for t in inputs):
            self._passing.setdefault(id(outputs[0]), []).append(layer)  # in inference a Dropout, too
            return
        inputs = [self._before_cast(t) for t in inputs]
        if self._graph is not (None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()):
            self._hidden.add(id(layer))
            return
        for output in outputs:
            call = TracedCall(layer, inputs, output, visible and len(outputs) == 1)
            self.calls.append(call)
            self._producers.setdefault(id(output), call)
            for tensor in {id(t) for t in inputs}:
                self._consumers.setdefault(tensor, []).append(call)

    @tf.autograph.experimental.do_not_convert
    def record_cast(self, args: Any, result: Any) -> None:
        """Notes that Keras cast inputs to another type: those of a layer with mixed precision, or integers to floats."""
        for given, cast in zip(_tensors_in(args), _tensors_in(result)):
            if cast is not given and cast.dtype.is_floating and given.shape == cast.shape:
                self._casts[id(cast)] = (cast, self._before_cast(given))

    def _before_cast(self, tensor: tf.Tensor) -> tf.Tensor:
        return self._casts.get(id(tensor), (tensor, tensor))[1]

    @tf.autograph.experimental.do_not_convert
    def record_model(self, args: Any, result: Any) -> None:
        """Notes a call of the outermost model."""
        self.inputs = [self._before_cast(tensor) for tensor in _tensors_in(args)]
        self.outputs = _tensors_in(result)


@contextmanager
def recorded(model: Any) -> Iterator[CallTrace]:
    """Records what a call of `model` inside the block does. The results of the calls are passed on as they are."""
    trace = CallTrace()
    with ExitStack() as stack:
        for layer, visible in visible_layers(model):
            stack.enter_context(_recording(layer, partial(trace.record, layer, visible)))
        for owner, method in input_casts(model):
            stack.enter_context(_recording(owner, trace.record_cast, method))
        stack.enter_context(_recording(model, trace.record_model))
        yield trace


def _recording(owner: Any, record: Callable[[Any, Any], None], method: str = "call") -> AbstractContextManager[None]:
    """Makes each call of the method also call `record(arguments, result)`."""
    call = getattr(owner, method)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        record((args, kwargs), result)
        return result

    return patched(owner, method, wrapper)


def _tensors_in(value: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(value) if isinstance(leaf, tf.Tensor)]
