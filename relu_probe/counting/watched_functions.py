"""ReLUs that are written as functions, in the graphs of the user's in which a watched model is called.

Each outermost call of the model, or of a layer of it, is searched when it ends. Its backward pass comes later, and nothing tells when the
graph is complete. So TensorFlow tells of each operation that is added to the graph, and a gradient is counted when it is made.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from relu_probe.counting.hidden_relus import IN_LOOP, OUTSIDE_FUNCTION
from relu_probe.counting.passes import BackwardPass, CountedGradients, ForwardPass, before_bound
from relu_probe.counting.relu_search import GRADIENTS, SELECTIONS, pre_activation_gradients, variable_input
from relu_probe.counting.step_passes import search
from relu_probe.counting.step_trace import StepTrace, current_graph
from relu_probe.structure.call_owners import CallOwner, is_scratch_graph
from relu_probe.utils.error_policy import reason
from relu_probe.utils.tensorflow_private import (
    is_loop_or_branch,
    is_recorded_from_outside,
    observe_new_operations,
)

_KEPT_FOR_GRADIENT = (
    "TensorListPushBack",
    "OptionalFromValue",
)  # made where a tape outside of a loop or branch needs a tensor


class _Found(NamedTuple):
    """A ReLU function in a graph of the user's.

    Args:
        relu: what it is counted as.
        output: its output.
        counted: the positions that were counted with a gradient.
    """

    relu: Any
    output: tf.Tensor
    counted: CountedGradients


class _ObservedGraph:
    """A graph of the user's, with what calls of the model have shown in it."""

    def __init__(self) -> None:
        self.found: list[_Found] = []
        self.without_gradient: set[str] = set()  # the keys of those of which no gradient was made in the graph


class _All:
    """Contains everything."""

    def __contains__(self, _: object) -> bool:
        return True


class WatchedFunctions:
    """The ReLUs written as functions that calls of a watched model show in the graphs of the user's."""

    def __init__(self) -> None:
        self._local = threading.local()  # each replica of a MirroredStrategy traces in its own thread
        self._observed: dict[int, _ObservedGraph] = {}  # by the ids of graphs that are alive because they are observed
        self._functions: list[tuple[Any, set[str]]] = []  # weak references to graphs, with their `without_gradient`
        self._missed = False  # whether a call was run eagerly, so that its functions are not seen

    @tf.autograph.experimental.do_not_convert
    @contextmanager
    def followed(self, owner: CallOwner, counters: Any) -> Iterator[None]:
        """Follows a call of a layer that is made in the block, and counts what it shows if no other call surrounds it."""
        trace: StepTrace | None = getattr(self._local, "trace", None)
        if trace is not None:
            with _noted(trace, owner):
                yield
            return
        graph = current_graph()
        self._missed |= graph is None
        if graph is None or is_scratch_graph(graph):
            yield
            return
        trace = self._local.trace = StepTrace(graph)
        try:
            with _noted(trace, owner):
                yield
            self._end(trace, counters)
        finally:
            self._local.trace = None

    def forget(self) -> None:
        """Forgets calls whose ends an interrupt has kept from being noted, and graphs that are not observed any more."""
        self._local, self._observed = threading.local(), {}

    def name_outside(self, counters: Any) -> bool:
        """Names the gradients that a tape outside of a function has computed, and returns whether a call was run eagerly."""
        for reference, keys in self._functions:
            if (graph := reference()) is not None and is_recorded_from_outside(graph):
                counters.leave_out([f"gradients of {key}" for key in keys], OUTSIDE_FUNCTION)
        return self._missed

    def _end(self, trace: StepTrace, counters: Any) -> None:
        try:
            unseen = search(trace, counters.relus, _All())
            counters.unseen = {key: why for key, why in unseen.items() if key not in counters.relus} | counters.unseen
            for each in trace.outputs:
                relu, neurons = each.relu, (each.relu.neurons_in(each.output.shape) or 0,)
                counters.functions.setdefault(relu.key, relu)
                if not each.again:
                    counters.record(ForwardPass((relu.key,), neurons, relu, each.output, each.output))
            if trace.outputs:
                self._observe(trace, counters)
        except Exception as error:  # counting never stops a training
            counters.leave_out(["functions"], reason(error))

    def _observe(self, trace: StepTrace, counters: Any) -> None:
        graph = trace.graph
        if id(graph) not in self._observed:
            observed = self._observed[id(graph)] = _ObservedGraph()
            observe_new_operations(graph, partial(_note, observed, counters), counters.detach)
            if not is_loop_or_branch(graph):
                self._functions.append((weakref.ref(graph), observed.without_gradient))
        observed = self._observed[id(graph)]
        observed.found += [_Found(each.relu, each.output, CountedGradients()) for each in trace.outputs]
        observed.without_gradient.update(each.relu.key for each in trace.outputs)


@contextmanager
def _noted(trace: StepTrace, owner: CallOwner) -> Iterator[None]:
    call = trace.begin(owner)
    try:
        yield
    finally:
        trace.end(call)


@tf.autograph.experimental.do_not_convert
def _note(observed: _ObservedGraph, counters: Any, op: tf.Operation) -> None:
    """Counts a gradient that was added to a graph."""
    found = observed.found
    if op.type in (*GRADIENTS, *SELECTIONS):
        is_relu = op.type in GRADIENTS
        possible = [e for e in found if (e.output is op.inputs[1] if is_relu else e.output.op.type == "Maximum")]
        for each in possible:
            _count_gradient(each, op.outputs[0], observed, counters)
    elif op.type in _KEPT_FOR_GRADIENT:
        kept = op.inputs[-1]
        outside = [each for each in found if kept is each.output or kept is variable_input(each.output.op)]
        counters.leave_out([each.relu.key for each in outside], IN_LOOP)


def _count_gradient(each: _Found, gradient: tf.Tensor, observed: _ObservedGraph, counters: Any) -> None:
    relu, output, counted = each
    try:
        if not any(gradient is own for own in pre_activation_gradients(output)):
            return
        observed.without_gradient.discard(relu.key)
        if not counters.is_frozen(relu):
            neurons, unbounded = (relu.neurons_in(output.shape) or 0,), before_bound(output, relu.ceiling)
            counters.record(BackwardPass((relu.key,), neurons, relu, output, gradient, counted, unbounded))
    except Exception as error:
        counters.leave_out([relu.key], reason(error))
