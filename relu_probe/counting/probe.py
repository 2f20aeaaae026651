"""The probe of a ReLU layer.

A probe sits on the output of its layer and returns it unchanged. In the graph of a step, it notes the output of a ReLU operation, whose
gradient is looked for once the step has been traced. Elsewhere a custom gradient, which passes the gradient on unchanged, records it.
"""

from typing import Any

import tensorflow as tf

from relu_probe.counting.counters import Counters
from relu_probe.counting.hidden_relus import IN_FUNCTION, IN_LOOP, OUTSIDE_FUNCTION
from relu_probe.counting.neuron_axis import with_proved_axis
from relu_probe.counting.passes import BackwardPass, CountedGradients, ForwardPass, before_bound, before_relu
from relu_probe.counting.relu_search import RELUS
from relu_probe.counting.step_trace import ReluOutput, StepTrace, current_graph
from relu_probe.structure.call_owners import is_scratch_graph
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.utils.error_policy import reason
from relu_probe.utils.tensorflow_private import (
    forget_gradient_with,
    is_inside_vectorized_map,
    is_loop_or_branch,
    is_part_of,
    recomputation,
)

_IN_VECTORIZED_MAP = (
    "called inside tf.vectorized_map, as Keras 3's TimeDistributed does if the number of time steps is unknown: give the "
    "time axis a fixed length, or call the layer without TimeDistributed"
)


class Probe:
    """The probe of one ReLU layer.

    Args:
        relu: the layer.
        counters: record the passes through the layer.
    """

    def __init__(self, relu: ReluLayer, counters: Counters) -> None:
        self.relu = relu
        self.counters = counters

    @tf.autograph.experimental.do_not_convert
    def __call__(self, output: Any) -> Any:
        """Returns the output `(batch, ..., neurons)` of the layer unchanged, and records it."""
        graph, trace = current_graph(), self.counters.trace
        # Keras builds models in graphs that never run. Without a step, another thread than that of the step calls the model.
        ignored = (
            not tf.is_tensor(output) or is_scratch_graph(graph) or (trace is None and not self.counters.everywhere)
        )
        if ignored or self.relu.key in self.counters.unseen:
            return output
        try:
            if why := self._refusal(output, graph, trace):
                self.counters.leave_out([self.relu.key], why)
                return output
            relu, again = self._with_axis(output), recomputation() == "again"
            if trace is None or graph is not trace.graph or not self._is_searched(output, trace, again):
                return self._identity(relu, output, again)
            trace.outputs.append(ReluOutput(relu, output, again))
        except Exception as error:  # a probe never stops a training: the report names the layer and the reason
            self.counters.leave_out([self.relu.key], reason(error))
        return output

    def _refusal(self, output: Any, graph: Any, trace: StepTrace | None) -> str:
        """Says why this call cannot be counted; "" if it can."""
        if not isinstance(output, tf.Tensor):
            return f"its output is a {type(output).__name__}, expected a tf.Tensor"
        if output.shape.rank is None or output.shape.rank < 2:
            return f"its output has the shape {output.shape}, expected (batch, ..., neurons)"
        if is_inside_vectorized_map():
            return _IN_VECTORIZED_MAP
        if trace is not None and not is_part_of(graph, trace.graph):
            return IN_FUNCTION
        return IN_LOOP if trace is not None and trace.differentiated and graph is not trace.graph else ""

    def _with_axis(self, output: tf.Tensor) -> ReluLayer:
        """Returns the layer, with the axis of the neurons proved."""
        relu = with_proved_axis(self.relu, output)
        if relu is None:
            raise ValueError(
                f"neither the structure of the model nor the operations before it show which axis of its output {output.shape} "
                "has the neurons; in a functional or Sequential model they are known"
            )
        if relu.neurons_in(output.shape) is None:
            raise ValueError(f"its output has the shape {output.shape}, expected a known number of neurons")
        return relu

    def _is_searched(self, output: tf.Tensor, trace: StepTrace, again: bool) -> bool:
        """Whether the gradient of an output is found later, so that no custom gradient is needed."""
        if trace.tape is not None:
            trace.tape.watch(output)
        if self.counters.measuring and not again:
            return True
        return trace.graph is not None and output.op.type in RELUS

    def _is_in_graph_of(self, a: tf.Tensor) -> bool:
        """Whether the gradient of an output is computed in the same graph as the output.

        A loop or branch, or a function, that the tape encloses has a graph of its own for its gradient. In that of a function
        TensorFlow drops operations that only count.

        Raises:
            ValueError: in the gradient of a loop or branch, into which TensorFlow cannot carry the counters.
        """
        graph = current_graph()
        if graph is None or graph is getattr(a, "graph", graph):
            return True
        if is_loop_or_branch(graph):
            raise ValueError(IN_LOOP)
        return False

    def _identity(self, relu: ReluLayer, output: tf.Tensor, again: bool) -> tf.Tensor:
        source = before_relu(output) if self.counters.measuring else output
        keys, neurons = (relu.key,), (relu.neurons_in(output.shape) or 0,)
        operations = self.counters.operations
        unbounded = before_bound(operations.tensor(output) if operations else output, relu.ceiling)

        @tf.custom_gradient
        def identity(a: tf.Tensor) -> Any:
            if not again:
                self.counters.record(ForwardPass(keys, neurons, relu, a, a if source is output else source))
            counted = CountedGradients()

            def backward(gradient: Any) -> Any:
                passed = tf.identity(tf.convert_to_tensor(gradient))  # its consumers tell whether the gradient is used
                try:
                    in_graph = self._is_in_graph_of(a)
                    if self.counters.is_frozen(relu) or is_inside_vectorized_map():
                        pass  # the rows of a Jacobian are not the gradients of a loss
                    elif in_graph:
                        self.counters.record(BackwardPass(keys, neurons, relu, a, passed, counted, unbounded))
                    else:
                        self.counters.leave_out([f"gradients of {relu.key}"], OUTSIDE_FUNCTION)
                except Exception as error:
                    self.counters.leave_out(keys, reason(error))
                return passed

            return tf.identity(a), backward

        result = identity(output)
        forget_gradient_with(self.counters.model, result)
        return result
