"""The operations of an eager step, recorded so that they can be followed like those of a graph.

A graph shows where a tensor comes from and what it is used for. An eager step keeps no graph, but TensorFlow tells of each operation
that it runs. What is kept are types, shapes and attributes of operations, and the inputs of those that bound a ReLU. All other tensors
are freed as they would be without the record.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import tensorflow as tf

from relu_probe.utils.tensorflow_private import begin_observing, end_observing, ids_and_shapes, operation_definition

_FUNCTION_CALL = "PartitionedCall"
BOUNDS = ("Minimum", "ClipByValue")  # their inputs are kept
# Operations that have constant inputs, such as axes, which are needed to follow rows and samples.
_WITH_CONSTANTS = (
    *("StridedSlice", "Pad", "ConcatV2", "ExpandDims", "GatherV2", "Sum", "Mean", "Max", "Min", "Prod", "Minimum"),
    "ClipByValue",
)
_MOST_VALUES = 16  # of a constant input


class RecordedTensor:
    """A tensor of an eager step, with the attributes of one in a graph.

    Args:
        graph: the record that it belongs to.
        op: the operation that made it.
        value_index: its index among the outputs of that operation.
        shape: its shape.
    """

    def __init__(self, graph: "EagerOperations", op: "RecordedOperation", value_index: int, shape: Any) -> None:
        self.graph, self.op, self.value_index, self._sizes = graph, op, value_index, shape
        self._consumers: list[RecordedOperation] = []

    @property
    def shape(self) -> Any:
        """The shape of the tensor."""
        return tf.TensorShape(self._sizes)

    @property
    def value(self) -> Any:
        """The tensor itself; None if it is not kept."""
        return self.graph.values.get(id(self))

    def consumers(self) -> list["RecordedOperation"]:
        """Returns the operations that read the tensor."""
        return self._consumers


class RecordedOperation:
    """An operation of an eager step, with the attributes of one in a graph.

    Args:
        kind: its type, such as "MatMul"; "" for what made a tensor that was there before the step, or outside of TensorFlow.
        inputs: the tensors that it read.
        attributes: names and values by turns.
    """

    def __init__(self, kind: str = "", inputs: Any = (), attributes: Any = ()) -> None:
        self.type = (
            _FUNCTION_CALL if kind.startswith("__") else kind
        )  # a function has a name such as "__inference_step_12"
        self.inputs: list[RecordedTensor] = list(inputs)
        self.outputs: list[RecordedTensor] = []
        self._attributes = attributes

    @property
    def op_def(self) -> Any:
        """The definition of its type."""
        return operation_definition(self.type)

    def get_attr(self, name: str) -> Any:
        """Returns the value of an attribute."""
        return self._attributes[self._attributes.index(name) + 1]


class EagerOperations:
    """The record of the operations that one thread runs, in the blocks of `recorded`."""

    def __init__(self) -> None:
        self._new: list[tuple[Any, ...]] = []  # operations that were noted, and are not looked at yet
        self._tensors: dict[int, RecordedTensor] = {}  # by TensorFlow's number of the tensor
        self._kept: dict[int, Any] = {}  # tensors, by their numbers
        self.values: dict[int, Any] = {}  # the same, by the ids of their records
        self._problem = f"TensorFlow {tf.__version__} does not show the operations of an eager step"

    @contextmanager
    def recorded(self, restorers: list[Callable[[], None]]) -> Iterator[None]:
        """Records the operations of this thread in the block.

        Args:
            restorers: gets a function that ends the record, so that an interrupt cannot leave it behind.
        """

        def end() -> None:
            end_observing(self._note)

        restorers.append(end)
        try:
            with suppress(ImportError, AttributeError):  # a later TensorFlow may do without
                begin_observing(self._note)
                self._problem = ""
            yield
        finally:
            end()
            with suppress(ValueError):  # another thread has called it
                restorers.remove(end)

    def tensor(self, tensor: Any) -> RecordedTensor:
        """Returns the record of a tensor.

        Raises:
            RuntimeError: there is no record, or it is not complete.
        """
        if self._problem:
            raise RuntimeError(self._problem)
        self._read_new()
        return self._found(*ids_and_shapes([tensor])[0])

    def forget_values(self) -> None:
        """Frees the tensors that are kept, at the end of the step: the records refer to each other, and stay for a while."""
        self._kept, self.values = {}, {}

    def _note(
        self, kind: Any, inputs: Any, attributes: Any, outputs: Any, *_: Any, graph: Any = None, **__: Any
    ) -> Any:
        """Notes an operation, in as little time as possible, and returns its outputs as they are."""
        try:
            if graph is None:
                kind = kind if isinstance(kind, str) else kind.decode()
                if kind in _WITH_CONSTANTS:
                    self._keep_values(kind, inputs)
                self._new.append((kind, ids_and_shapes(inputs), attributes, ids_and_shapes(outputs)))
        except Exception as error:  # it would end the operation, which is the user's
            self._problem = f"an operation could not be recorded: {type(error).__name__}: {error}"
        return outputs

    def _keep_values(self, kind: str, inputs: Any) -> None:
        for each, (number, shape) in zip(inputs, ids_and_shapes(inputs)):
            if kind in BOUNDS or (len(shape) < 2 and each.dtype.is_integer and sum(shape) <= _MOST_VALUES):
                self._kept[number] = each

    def _read_new(self) -> None:
        new, self._new = self._new, []
        for kind, inputs, attributes, outputs in new:
            op = RecordedOperation(kind, [self._found(*each) for each in inputs], attributes)
            for each in op.inputs:
                each.consumers().append(op)
            for index, (number, shape) in enumerate(outputs):
                found = self._tensors[number] = RecordedTensor(self, op, index, shape)
                op.outputs.append(found)

    def _found(self, number: int, shape: Any) -> RecordedTensor:
        if number not in self._tensors:
            source = RecordedOperation()
            self._tensors[number] = RecordedTensor(self, source, 0, shape)
            source.outputs.append(self._tensors[number])
        found = self._tensors[number]
        if number in self._kept:
            self.values[id(found)] = self._kept.pop(number)
        return found


def static_value(tensor: Any) -> Any:
    """Returns the value of a constant as an array; None for any other tensor, of a graph or of a record."""
    if not isinstance(tensor, RecordedTensor):
        return tf.get_static_value(tensor)
    return tensor.value.numpy() if tensor.value is not None and tensor.shape.rank < 2 else None
