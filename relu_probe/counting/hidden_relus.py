"""ReLU operations that a traced step runs in other graphs than its own: loops, branches, and functions. They are named, not counted."""

from collections.abc import Container, Iterable, Iterator
from typing import Any

from relu_probe.counting.relu_search import RELUS
from relu_probe.counting.step_trace import StepTrace, owners_of
from relu_probe.structure.call_owners import call_owners, is_scratch_graph
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.utils.tensorflow_private import is_part_of

IN_LOOP = (
    "called inside tf.while_loop, tf.map_fn or tf.cond, through which its gradient cannot be counted: write the loop in "
    "Python, or compile the model with run_eagerly=True"
)
IN_FUNCTION = "called inside a tf.function of its own, which other steps use too: remove the decorator @tf.function"
OUTSIDE_FUNCTION = (
    "computed outside of the tf.function that calls the layer, where TensorFlow drops operations that only count: open the tape "
    "inside of that function"
)
IN_CELLS = "relu inside its cells"
UNSEARCHED = (
    "ReLUs that are written as functions inside of a call are looked for only where it is traced: in fit, in measure, and in a "
    "tf.function inside of watch"
)
_CALLS = (
    "PartitionedCall",
    "StatefulPartitionedCall",
    "While",
    "StatelessWhile",
    "If",
    "StatelessIf",
    "Case",
    "StatelessCase",
)


def find_hidden(trace: StepTrace, used: Container[Any], uncalled: Iterable[ReluLayer]) -> Iterator[tuple[str, str]]:
    """Yields the keys of ReLUs that a step runs in other graphs, and the reasons why they are not counted.

    Args:
        trace: what was gathered while the step was traced.
        used: the operations that are run.
        uncalled: the ReLU layers that the step did not call. A function that was traced before may contain them.
    """
    named: set[str] = set()
    for graph in {id(call.graph): call.graph for call in trace.calls if call.graph is not trace.graph}.values():
        if not is_scratch_graph(graph):
            yield from _in_graph(graph, trace, named)
    operations = trace.graph.get_operations()
    owners = owners_of(trace.calls, trace.graph, len(operations))
    library: dict[str, Any] = {}
    for op, call in zip(operations[trace.first :], owners[trace.first :]):
        if op.type in _CALLS and call is not None and call.owner.has_functions:
            library = library or {each.signature.name: each for each in trace.graph.as_graph_def().library.function}
            names = [name for attribute in op.node_def.attr.values() for name in _functions_in(attribute)]
            if _has_relu(names, library, named) and any(output in used for output in op.outputs):
                why, prefix = IN_FUNCTION if "Call" in op.type else IN_LOOP, call.owner.prefix
                below = [relu.key for relu in uncalled if relu.path.startswith(prefix)]
                yield from ((key, why) for key in below or [f"{prefix}relu"])


def unsearched(model: Any) -> dict[str, str]:
    """Returns what is not counted where no graph is searched, with the reasons: functions, and RNN layers with a ReLU in their cells."""
    owners = [owner for owner in call_owners(model, []) if owner.has_functions]
    cells = {owner.name: IN_CELLS for owner in owners if owner.in_cell}
    return cells | ({} if len(cells) == len(owners) else {"functions": UNSEARCHED})


def _in_graph(graph: Any, trace: StepTrace, named: set[str]) -> Iterator[tuple[str, str]]:
    """Yields the ReLUs that calls of layers made in another graph; adds the names of the operations to `named`."""
    operations = graph.get_operations()
    counted = {id(each.relu.layer) for each in trace.loops if each.body is graph}
    for op, call in zip(operations, owners_of(trace.calls, graph, len(operations))):
        if op.type in RELUS and call is not None:
            named.add(op.name)
            if call.owner.has_functions and id(call.owner.layer) not in counted:
                why = IN_LOOP if is_part_of(graph, trace.graph) else IN_FUNCTION
                yield (call.owner.name, IN_CELLS) if call.owner.in_cell else (f"{call.owner.prefix}relu", why)


def _has_relu(names: list[str], library: dict[str, Any], known: set[str]) -> bool:
    """Whether functions, or functions that they call, have a ReLU that is not known."""
    pending, seen = list(names), set()
    while pending:
        name = pending.pop()
        if name in seen or name not in library:
            continue
        seen.add(name)
        for node in library[name].node_def:
            if node.op in RELUS and node.name not in known:
                return True
            pending += [inner for attribute in node.attr.values() for inner in _functions_in(attribute)]
    return False


def _functions_in(attribute: Any) -> list[str]:
    return [each.name for each in (attribute.func, *attribute.list.func) if each.name]
