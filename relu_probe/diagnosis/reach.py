"""What the output of a ReLU leads to, and what stands before a layer: walks through the trace of a step."""

from collections.abc import Mapping
from typing import Any

from relu_probe.diagnosis.call_trace import CallTrace
from relu_probe.structure.relu_layers import ReluLayer


def reachable_outputs(trace: CallTrace, relu: ReluLayer) -> set[int] | None:
    """The indices of the model's outputs that depend on the ReLU; None if the trace does not show it."""
    calls = trace.calls_of(relu.layer)
    if not calls or not trace.complete or not all(call.visible for call in calls):
        return None
    todo, seen, outputs = [call.output for call in calls], set(), set()
    while todo:
        tensor = todo.pop()
        if id(tensor) not in seen:
            seen.add(id(tensor))
            outputs |= {i for i, output in enumerate(trace.outputs) if output is tensor}
            todo += [call.output for call in trace.consumers(tensor)]
    return outputs


def following_relus(trace: CallTrace, layer: Any, holders: Mapping[str, Any]) -> list[str]:
    """The keys of the counted ReLUs that receive the output of the layer, with no other counted ReLU between them.

    Args:
        trace: the calls of a step.
        layer: the layer.
        holders: key of a counted ReLU -> the ReLU layer, or the layer in whose call it stands as a function.
    """
    keys: dict[int, list[str]] = {}
    for key, holder in holders.items():
        keys.setdefault(id(holder), []).append(key)
    todo, seen, found = [call.output for call in trace.calls_of(layer)], set(), []
    while todo:
        tensor = todo.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        for call in trace.consumers(tensor):
            if id(call.layer) in keys:
                found += keys[id(call.layer)]
            else:
                todo.append(call.output)
    return list(dict.fromkeys(found))


def is_behind_no_weights(trace: CallTrace, tensor: Any) -> bool:
    """Whether no layer with trainable weights stands between the model's inputs and the tensor."""
    todo = [tensor]
    while todo:
        current = todo.pop()
        if not any(current is given for given in trace.inputs):
            call = trace.producer(current)
            if call is None or getattr(call.layer, "trainable_weights", []):
                return False
            todo += call.inputs
    return True
