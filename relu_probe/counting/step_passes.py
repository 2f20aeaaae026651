"""The passes through ReLUs that a step has gathered, and the gradients of a measured loss by their outputs."""

from collections.abc import Container, Iterator, Mapping
from typing import Any

import tensorflow as tf

from relu_probe.counting.hidden_relus import find_hidden
from relu_probe.counting.passes import BackwardPass, CountedGradients, ForwardPass, before_bound, before_relu
from relu_probe.counting.relu_search import (
    behind_identities,
    find_functions,
    pre_activation_gradients,
    stopped_at_bound,
)
from relu_probe.counting.step_trace import ReluOutput, StepTrace
from relu_probe.counting.used_operations import UsedOperations
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.weights import is_frozen

Pass = ForwardPass | BackwardPass


def search(
    trace: StepTrace, relus: Mapping[str, ReluLayer], used: Container[tf.Tensor] | None = None
) -> dict[str, str]:
    """Adds the outputs of ReLUs that are written as functions to a trace, once.

    Args:
        trace: what was gathered while the step was traced.
        relus: the ReLU layers of the model, by their keys.
        used: the tensors that are used; None for those that the results of the step need.

    Returns:
        The keys of those that cannot be counted, with the reasons.
    """
    if trace.graph is None or not trace.calls:
        return {}
    used = UsedOperations(trace.results) if used is None else used
    called = {*(each.relu.key for each in trace.outputs), *(each.keys[0] for each in trace.passes)}
    unseen = dict(find_hidden(trace, used, [relu for key, relu in relus.items() if key not in called]))
    found, refused = find_functions(trace, used, relus)
    trace.outputs += found
    trace.calls = []
    return refused | unseen


def differentiate(trace: StepTrace, loss: tf.Tensor, others: list[tf.Tensor]) -> list[Any]:
    """Notes the gradients of the loss by the outputs of all ReLUs, and returns those by `others`; None for no path."""
    tensors = [*others, *(each.output for each in trace.outputs), *(each.zeros for each in trace.loops)]
    gradients = [] if not tensors else trace.tape.gradient(loss, tensors) if trace.tape else tf.gradients(loss, tensors)
    trace.gradients = {id(each): gradient for each, gradient in zip(tensors, gradients)}
    return list(gradients[: len(others)])


def gathered_passes(trace: StepTrace, model: Any, *, measuring: bool) -> list[Pass]:
    """Returns all passes of a step, apart from backward passes that training does not use.

    Args:
        trace: what was gathered.
        model: the model. Its structure may show that training cannot use a gradient of a layer.
        measuring: whether all gradients count, and NaN are looked for before the activation.
    """
    found = [each for output in trace.outputs for each in _passes_through(output, trace, measuring)]
    passes = trace.passes + found
    if measuring:
        return passes
    used = UsedOperations(trace.results)
    forward = [each for each in passes if isinstance(each, ForwardPass)]
    backward = [each for each in passes if isinstance(each, BackwardPass)]
    in_use = [each for each in backward if _recorded(each.gradient, trace) in used]
    if trace.graph is None and not in_use:  # a step of the user's may take all gradients out of TensorFlow, into NumPy
        in_use = [each for each in backward if not is_frozen(each.relu.layer, model)]
    return [*forward, *in_use]


def looped_gradients(trace: StepTrace, model: Any, *, measuring: bool) -> dict[int, Any]:
    """Returns the gradients by the zeros of ReLUs in loops, by `id(zeros)`, apart from those that training does not use."""
    loops = [each for each in trace.loops if measuring or not is_frozen(each.relu.layer, model)]
    found = {id(each.zeros): trace.gradients.get(id(each.zeros)) for each in loops}
    found = {key: gradient for key, gradient in found.items() if gradient is not None}
    if measuring or not found:
        return found
    used = UsedOperations(trace.results)
    return {key: gradient for key, gradient in found.items() if behind_identities(gradient) in used}


def _recorded(tensor: tf.Tensor, trace: StepTrace) -> Any:
    """Returns the tensor of a graph, or the record of an eager one."""
    return tensor if trace.operations is None else trace.operations.tensor(tensor)


def _passes_through(found: ReluOutput, trace: StepTrace, measuring: bool) -> Iterator[Pass]:
    relu, output, counted = found.relu, found.output, CountedGradients()
    keys, neurons = (relu.key,), (relu.neurons_in(output.shape) or 0,)
    if not found.again:
        yield ForwardPass(keys, neurons, relu, output, before_relu(output) if measuring else output)
    unbounded = before_bound(_recorded(output, trace), relu.ceiling)
    for gradient in _gradients_of(output, trace):
        yield BackwardPass(keys, neurons, relu, output, gradient, counted, unbounded)


def _gradients_of(output: tf.Tensor, trace: StepTrace) -> list[tf.Tensor]:
    """Returns the gradients that arrived at an output: by the pre-activation, or by the output, with the same effect."""
    if id(output) not in trace.gradients:
        return [] if trace.graph is None else pre_activation_gradients(output)
    if (gradient := trace.gradients[id(output)]) is None:
        return []
    gradient = tf.convert_to_tensor(gradient)  # IndexedSlices
    return [gradient if trace.graph is None else stopped_at_bound(output, gradient)]
