"""What is gathered while a step is traced or run: the passes through ReLU layers, and which operations each call made."""

from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from relu_probe.counting.eager_operations import EagerOperations
from relu_probe.counting.looped_relus import LoopedRelu
from relu_probe.counting.passes import BackwardPass, ForwardPass
from relu_probe.structure.call_owners import CallOwner
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.utils.tensorflow_private import recomputation


@dataclass(eq=False)
class TracedCall:
    """A call of a layer, and the range of operations that it added to a graph: from `first` up to, without, `last`."""

    owner: CallOwner
    graph: Any
    first: int
    last: int
    recomputation: str  # as in `recomputation()`


@dataclass(frozen=True)
class ReluOutput:
    """An output of a ReLU in the graph of the step, whose gradient is looked for once the step has been traced.

    Args:
        relu: what it is counted as.
        output: `(batch, ..., neurons)`.
        again: whether it is the second of the two outputs of a call inside `tf.recompute_grad`: only its gradient counts.
    """

    relu: ReluLayer
    output: tf.Tensor
    again: bool = False


@dataclass(eq=False)
class StepTrace:
    """What one thread gathers of a step.

    Args:
        graph: the graph in which the step is traced; None if it is run eagerly.
        differentiated: whether the step ends in `Counters.differentiate`.
    """

    graph: Any
    differentiated: bool = False
    operations: EagerOperations | None = None  # of a step that is run eagerly
    tape: tf.GradientTape | None = None  # records the forward pass, if it is run eagerly
    passes: list[ForwardPass | BackwardPass] = field(default_factory=list)
    outputs: list[ReluOutput] = field(default_factory=list)
    loops: list[LoopedRelu] = field(default_factory=list)
    gradients: dict[int, Any] = field(
        default_factory=dict
    )  # of the loss by outputs and zeros of loops, by their ids; None for no path
    calls: list[TracedCall] = field(default_factory=list)  # in the order in which they begin
    results: list[Any] = field(default_factory=list)  # of the outermost calls
    depth: int = 0

    def __post_init__(self) -> None:
        self.first = operations_in(self.graph)
        self.operations = EagerOperations() if self.graph is None else None

    @tf.autograph.experimental.do_not_convert
    def begin(self, owner: CallOwner) -> TracedCall | None:
        """Notes that a call begins; None for a call that is run eagerly."""
        self.depth += 1
        if (graph := current_graph()) is None:
            return None
        call = TracedCall(owner, graph, operations_in(graph), -1, recomputation())
        self.calls.append(call)
        return call

    @tf.autograph.experimental.do_not_convert
    def end(self, call: TracedCall | None) -> None:
        """Notes that a call ends."""
        self.depth -= 1
        if call is not None:
            call.last = operations_in(call.graph)

    @tf.autograph.experimental.do_not_convert
    def add_result(self, result: Any) -> None:
        """Notes the result of a call, if no other call surrounds it."""
        if not self.depth and self.graph is not None:
            self.results += [each for each in tf.nest.flatten(result) if getattr(each, "graph", None) is self.graph]


def owners_of(calls: list[TracedCall], graph: Any, operations: int) -> list[TracedCall | None]:
    """Returns, for each operation of a graph, the innermost call that made it; None if none of these calls did."""
    owners: list[TracedCall | None] = [None] * operations
    for call in calls:  # inner calls begin later
        if call.graph is graph:
            owners[call.first : call.last] = [call] * (call.last - call.first)
    return owners


def current_graph() -> Any:
    """Returns the graph in which operations are made; None if they are run at once."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def operations_in(graph: Any) -> int:
    """Returns the number of operations in a graph. Operations are numbered as they are made."""
    return 0 if graph is None else graph.version
