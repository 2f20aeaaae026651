"""The ReLUs in the cells of RNN layers: counted inside of the loop over the time steps.

A cell of Keras's calls its attribute `activation`. While the loop of a step is traced, and only inside of a call of the cell, this
attribute is a function that returns the same values and counts them. Of an unrolled layer, `relu_search` finds the operations.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import tensorflow as tf

from relu_probe.counting.looped_relus import LoopedRelu, plain_zeros, watched_zeros, with_counted_gradient
from relu_probe.counting.passes import ForwardPass
from relu_probe.counting.step_trace import StepTrace, current_graph
from relu_probe.structure.call_owners import CallOwner, is_scratch_graph
from relu_probe.structure.recurrent import RecurrentCell, looped_cells
from relu_probe.structure.relu_function import relu_ceiling
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.run_settings import unrolls_steps
from relu_probe.utils.error_policy import reason
from relu_probe.utils.instance_patch import patch_instance
from relu_probe.utils.tensorflow_private import is_inside_vectorized_map, is_part_of, recomputation

Call = Callable[..., Any]
_MOST_RELUS = 5  # in a call of a cell: an LSTM cell calls its two activations five times
_GRADIENT = (
    "in a loop of an RNN layer, which counts one gradient in a step: the step computes several, or in another function"
)
_CUT_OFF = (
    "in a loop of an RNN layer, which the end of the data may cut off in this version of Keras if steps_per_execution is above 1: use "
    "a newer Keras, or steps_per_execution=1"
)
_thread = threading.local()


class RecurrentCall:
    """A call of an RNN layer in the graph of a step.

    Args:
        cells: those of its cells that have a ReLU.
        sequences: `(batch, time, ...)`.
        anchors: what the loop is computed from: a tape that watches one of them goes backwards through the loop.
        counters: what the counts are added to.
        trace: what is gathered of the step.
    """

    def __init__(
        self,
        cells: list[RecurrentCell],
        sequences: tf.Tensor,
        anchors: list[tf.Tensor],
        counters: Any,
        trace: StepTrace,
    ) -> None:
        self._counters, self._trace, self._graph = counters, trace, trace.graph
        self._sequences, self._anchors = sequences, anchors
        self.relus: list[LoopedRelu] = []
        self._zeros = {id(cell.layer): self._make_zeros(cell) for cell in cells}

    def _make_zeros(self, cell: RecurrentCell) -> list[tf.Tensor]:
        if self._counters.measuring:
            return plain_zeros(cell.neurons, _MOST_RELUS)

        def receive(*gradients: tf.Tensor) -> None:
            if not is_inside_vectorized_map():  # the rows of a Jacobian are not the gradients of a loss
                self._receive({id(each): gradient for each, gradient in zip(zeros, gradients)})

        zeros = watched_zeros(cell.neurons, _MOST_RELUS, self._anchors, receive, self._counters.model)
        return zeros

    def _receive(self, gradients: dict[int, tf.Tensor]) -> None:
        """Notes the gradients by the zeros, by `id(zeros)`."""
        if current_graph() is self._graph and not self._trace.gradients.keys() & gradients.keys():
            self._trace.gradients |= gradients
        else:
            self._counters.leave_out([relu.relu.key for relu in self.relus if id(relu.zeros) in gradients], _GRADIENT)

    @tf.autograph.experimental.do_not_convert
    def end(self) -> None:
        """Notes the ReLUs that the call has shown."""
        self._trace.loops += self.relus

    @tf.autograph.experimental.do_not_convert
    def is_in_loop(self, cell: RecurrentCell) -> bool:
        """Whether the code that runs now traces a cell in the loop of this call. Keras also traces it once before the loop."""
        graph = current_graph()
        return graph is not self._graph and id(cell.layer) in self._zeros and is_part_of(graph, self._graph)

    def counted(self, cell: RecurrentCell, owner: CallOwner, function: Call, numbers: Iterator[int]) -> Call:
        """Returns an activation function of the cell that also counts what it returns.

        Args:
            cell: the cell.
            owner: the cell, with its place in the model.
            function: the activation function.
            numbers: the numbers of the ReLUs in a call of the cell.
        """

        @tf.autograph.experimental.do_not_convert
        def activation(z: tf.Tensor) -> tf.Tensor:
            output, key = function(z), owner.key(number := next(numbers))
            try:
                relu = ReluLayer(key, weakref.ref(cell.layer), cell.axis, relu_ceiling(function), path=key)
                return self._count(
                    ForwardPass((key,), (cell.neurons,), relu, output, output), self._zeros[id(cell.layer)][number]
                )
            except Exception as error:  # counting never stops a training
                self._counters.leave_out([key], reason(error))
                return output

        return activation

    def _count(self, forward: ForwardPass, zeros: tf.Tensor) -> tf.Tensor:
        self._counters.record_in_loop(forward)
        self.relus.append(LoopedRelu(forward.relu, self._sequences, zeros, current_graph()))
        return with_counted_gradient(forward, zeros, self._counters.model)


def with_counted_loop(owner: CallOwner, call: Call, counters: Any) -> Call:
    """Returns the `call` of an RNN layer or of its cell, which also counts the ReLUs in the loop; any other `call` as it is."""
    if isinstance(owner.layer, tf.keras.layers.RNN):
        cells = looped_cells(owner.layer)
        return _of_layer(owner, cells, call, counters) if cells else call
    cell = RecurrentCell.of(owner.layer) if owner.in_cell else None
    return call if cell is None else _of_cell(owner, cell, call, counters)


def _of_layer(owner: CallOwner, cells: list[RecurrentCell], call: Call, counters: Any) -> Call:
    def counted(*args: Any, **kwargs: Any) -> Any:
        before = getattr(_thread, "call", None)
        _thread.call = _begun(owner, cells, (args, kwargs), counters)
        try:
            return call(*args, **kwargs)
        finally:
            if _thread.call is not None:
                _thread.call.end()
            _thread.call = before

    return counted


@tf.autograph.experimental.do_not_convert
def _begun(owner: CallOwner, cells: list[RecurrentCell], arguments: Any, counters: Any) -> RecurrentCall | None:
    graph, trace = current_graph(), counters.trace
    if (
        graph is None
        or trace is None
        or graph is not trace.graph
        or is_scratch_graph(graph)
        or recomputation()
        or is_inside_vectorized_map()
    ):
        return None
    try:
        if unrolls_steps(counters.model) and not counters.measuring:
            raise ValueError(_CUT_OFF)
        return RecurrentCall(cells, _sequences(*arguments), _anchors(owner.layer, arguments), counters, trace)
    except Exception as error:  # counting never stops a training
        counters.leave_out([owner.name], reason(error))
        return None


def _sequences(args: Any, kwargs: Any) -> Any:
    """Returns the sequences that an RNN layer was called on; its other arguments are states, constants and a mask."""
    name = next((name for name in ("sequences", "inputs") if name in kwargs), None)
    return tf.nest.flatten(args if name is None else kwargs[name])[0]


def _anchors(rnn: Any, arguments: Any) -> list[tf.Tensor]:
    """Returns all tensors and weights that the loop of an RNN layer is computed from, and that a tape may watch."""
    tensors = [each for each in tf.nest.flatten(arguments) if isinstance(each, tf.Tensor)]
    found = [*tensors, *(tf.convert_to_tensor(weight) for weight in rnn.weights)]
    return [each for each in found if each.dtype.is_floating]


def _of_cell(owner: CallOwner, cell: RecurrentCell, call: Call, counters: Any) -> Call:
    def counted(*args: Any, **kwargs: Any) -> Any:
        restore = _activations_replaced(owner, cell, counters)
        try:
            return call(*args, **kwargs)
        finally:
            restore()

    return counted


@tf.autograph.experimental.do_not_convert
def _activations_replaced(owner: CallOwner, cell: RecurrentCell, counters: Any) -> Callable[[], Any]:
    """Replaces the activation functions of a cell in the loop; returns a function that puts them back."""
    current: RecurrentCall | None = getattr(_thread, "call", None)
    restored = ExitStack()
    if current is not None and current.is_in_loop(cell):
        numbers = count()
        for name, function in cell.relus.items():
            counted = current.counted(cell, owner, function, numbers)
            restored.callback(patch_instance(owner.layer, name, counted, counters.detach))
    return restored.close
