"""The ReLUs that a traced step holds as operations, and their gradients, found in its graph once it has been traced.

A ReLU that is written as a function, `tf.nn.relu(x)` in somebody's `call`, leaves an operation `Relu`, `Relu6` or `Maximum`. It
belongs to the innermost call that made it. The gradient of the loss with respect to the pre-activation is the output of the
operation that TensorFlow made for the ReLU's backward pass. Reading the output of a ReLU leaves TensorFlow's fusions as they are.
"""

import weakref
from collections import Counter
from collections.abc import Container, Iterator
from typing import NamedTuple

import tensorflow as tf

from relu_probe.counting.neuron_axis import depends_on_batch, neuron_axis
from relu_probe.counting.step_trace import ReluOutput, StepTrace, TracedCall, owners_of
from relu_probe.structure.call_owners import made_by_keras
from relu_probe.structure.relu_layers import ReluLayer

RELUS = ("Relu", "Relu6")
GRADIENTS = ("ReluGrad", "Relu6Grad")
SELECTIONS = ("Select", "SelectV2")
_SAME = ("Identity", "IdentityN", "StopGradient")


class FunctionRelu(NamedTuple):
    """A ReLU that is written as a function.

    Args:
        call: the call that made it.
        output: the output of the ReLU.
        number: its number among those that the call made.
    """

    call: TracedCall
    output: tf.Tensor
    number: int

    @property
    def key(self) -> str:
        """Its name in reports, such as "block/relu_1"."""
        return self.call.owner.key(self.number)


def find_functions(
    trace: StepTrace, used: Container[tf.Tensor], taken: Container[str]
) -> tuple[list[ReluOutput], dict[str, str]]:
    """Returns the ReLUs of a traced step that are written as functions.

    Args:
        trace: what was gathered while the step was traced.
        used: the operations that are run.
        taken: the keys of ReLU layers.

    Returns:
        Those that can be counted, and the keys of those that cannot, with the reasons.
    """
    found, refused = [], {}
    for function in _functions(trace, used, taken):
        owner, again = function.call.owner, function.call.recomputation == "again"
        if reason := _refusal(function):
            refused[function.key] = reason
        elif (axis := neuron_axis(function.output)) is not None:
            ceiling = 6.0 if function.output.op.type == "Relu6" else None
            relu = ReluLayer(function.key, weakref.ref(owner.layer), axis, ceiling, path=function.key)
            found.append(ReluOutput(relu, function.output, again))
    return found, refused


def pre_activation_gradients(output: tf.Tensor) -> list[tf.Tensor]:
    """Returns the gradients with respect to the pre-activation that were computed for the output of a ReLU operation."""
    op = output.op
    if op.type in RELUS:
        found = [each for each in output.consumers() if each.type in GRADIENTS and each.inputs[1] is output]
    elif not _is_maximum_with_zero(op):
        return []
    else:
        found = list(_selections(op))
        if _bound(op) is not None:
            found = list(_selections(variable_input(op).op))
    return [each.outputs[0] for each in found if _is_first_order(each, op)]


def stopped_at_bound(output: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Returns the gradient dL/da at the output of a ReLU operation, zero where `clip_by_value(x, 0, c)` does not pass it on."""
    if (bound := _bound(output.op)) is None:
        return gradient
    passes = variable_input(variable_input(output.op).op) <= tf.cast(bound, output.dtype)
    return tf.where(passes, gradient, tf.zeros_like(gradient))


def _functions(trace: StepTrace, used: Container[tf.Tensor], taken: Container[str]) -> Iterator[FunctionRelu]:
    """Yields the ReLU operations of the step that are run and that a call of the user's made."""
    operations = trace.graph.get_operations()
    outputs = {id(each.output) for each in trace.outputs}
    owners, numbers = owners_of(trace.calls, trace.graph, len(operations)), Counter[int]()
    # Keras traces a cell once before its loop, and with a mask uses the shape of its output.
    looped = {id(call.owner.layer) for call in trace.calls if call.owner.in_cell and call.graph is not trace.graph}
    for index, op in enumerate(operations[trace.first :], trace.first):
        if op.type not in RELUS and not _is_maximum_with_zero(op):
            continue
        call, output = owners[index], op.outputs[0]
        if call is None or not call.owner.has_functions or not output.dtype.is_floating:
            continue
        if id(call.owner.layer) in looped:
            continue
        if made_by_keras(op.traceback, in_cell=call.owner.in_cell):
            continue
        if output not in used or not depends_on_batch(output):
            continue
        before = behind_identities(variable_input(op))
        if id(before) in outputs:  # a ReLU behind a ReLU
            continue
        outputs.add(id(output))
        function = FunctionRelu(call, output, numbers[id(call)])
        while function.key in taken:  # a layer has the same name
            function = function._replace(number=function.number + 1)
        numbers[id(call)] = function.number + 1
        yield function


def _refusal(function: FunctionRelu) -> str:
    """Says why a ReLU cannot be counted; "" if it can."""
    output, call = function.output, function.call
    shape = output.shape
    if shape.rank is None or shape.rank < 2:
        return f"its output has the shape {shape}, expected (batch, ..., neurons)"
    if "loop_body" in output.op.name:
        return "called inside tf.vectorized_map"
    if not call.recomputation and _is_recomputed(output.op):
        return "behind tf.recompute_grad"
    axis = neuron_axis(output)
    if axis is None:
        return f"the operations before it do not show which axis of its output {shape} has the neurons"
    return "" if shape[axis] else f"its output {shape} has an unknown number of neurons"


def _is_recomputed(op: tf.Operation) -> bool:
    return any(frame.name == "inner" and frame.filename.endswith("custom_gradient.py") for frame in op.traceback)


def _is_first_order(gradient: tf.Operation, op: tf.Operation) -> bool:
    """Whether an operation computes the gradient of a loss, not the gradient of a gradient, as a gradient penalty needs it.

    TensorFlow puts the gradient of an operation into a scope of its own, inside of which the operation's scope follows. Rows of a
    Jacobian, which a `vectorized_map` computes, are no gradients of a loss either.
    """
    orders = [sum(part.startswith("gradient") for part in each.name.split("/")[:-1]) for each in (gradient, op)]
    return orders[0] - orders[1] <= 1 and "loop_body" not in gradient.name.split("/")


def _is_maximum_with_zero(op: tf.Operation) -> bool:
    return op.type == "Maximum" and any(_constant(each) == 0 for each in op.inputs)


def _bound(op: tf.Operation) -> float | None:
    """Returns the bound c of `clip_by_value(x, 0, c)`, None for another operation."""
    before = variable_input(op).op
    bounds = [_constant(each) for each in before.inputs] if op.type == "Maximum" and before.type == "Minimum" else []
    return next((bound for bound in bounds if bound is not None), None)


def variable_input(op: tf.Operation) -> tf.Tensor:
    """Returns the input of an operation that is not a constant number."""
    return next((each for each in op.inputs if _constant(each) is None), op.inputs[0])


def _constant(tensor: tf.Tensor) -> float | None:
    """Returns the value of a constant number, None for any other tensor."""
    value = tf.get_static_value(tensor) if tensor.shape.num_elements() == 1 else None
    return None if value is None else float(value.reshape(()))


def _selections(op: tf.Operation) -> Iterator[tf.Operation]:
    """Yields the operations that pass on the gradient of a maximum or minimum to its variable input: zero where it is off."""
    x = variable_input(op)
    comparison = "GreaterEqual" if op.type == "Maximum" else "LessEqual"
    zeros = 2 if op.inputs[0] is x else 1
    for compared in x.consumers():
        if compared.type == comparison and all(a is b for a, b in zip(compared.inputs, op.inputs)):
            for select in compared.outputs[0].consumers():
                if select.type in SELECTIONS and _is_zero(select.inputs[zeros]):
                    yield select


def _is_zero(tensor: tf.Tensor) -> bool:
    value = None if tensor.op.type in ("ZerosLike", "Fill") else tf.get_static_value(tensor)
    return tensor.op.type in ("ZerosLike", "Fill") or (value is not None and not value.any())


def behind_identities(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the tensor that operations which change nothing pass on."""
    while tensor.op.type in _SAME:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor
