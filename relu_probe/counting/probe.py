"""The probe sub-model of a ReLU layer, and its attachment to the layer for the duration of a step.

A probe is applied to the output of its layer and returns it unchanged. The forward pass records the output. The backward pass
records the gradient, through a custom gradient that passes it on unchanged. It is attached only while a step is traced or run, so
that nothing is left on the model.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from relu_probe.counting.counters import Counters
from relu_probe.counting.passes import BackwardPass, CountedGradients, ForwardPass
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.utils.error_policy import reason
from relu_probe.utils.instance_patch import patch_instance
from relu_probe.utils.tensorflow_private import forget_gradient_with, is_inside_vectorized_map, is_loop_or_branch

_WRAPPED = "_relu_probe_wrapped"  # attribute of our wrapper functions: the `call` that they wrap
_AFTER_RELU = ("Identity", "Minimum", "Maximum", "Mul", "Square")  # follow the ReLU if it is bounded or squared
_lock = threading.RLock()


class Probe:
    """The probe sub-model of one ReLU layer.

    Args:
        relu: the layer.
        counters: record the passes through the layer.
    """

    def __init__(self, relu: ReluLayer, counters: Counters) -> None:
        self.relu = relu
        self.counters = counters

    @tf.autograph.experimental.do_not_convert
    def __call__(self, output: Any) -> Any:
        """Returns the output `(batch, ..., neurons)` of the layer unchanged, and records it.

        A symbolic or ragged output, or one of unknown width, is not recorded.
        """
        if not isinstance(output, tf.Tensor) or output.shape.rank is None or output.shape[self.relu.axis] is None:
            return output
        try:
            self._check_context()
            self.counters.watch(output)
            return self._identity(output)
        except Exception as error:  # a probe never stops a training: the report names the layer and the reason
            self.counters.leave_out([self.relu.key], reason(error))
            return output

    def _check_context(self) -> None:
        """Raises ValueError in the body of a `tf.vectorized_map`.

        TensorFlow runs only the operations on which the result depends for all elements; the counts would cover one element.
        """
        if is_inside_vectorized_map():
            raise ValueError(
                "called inside tf.vectorized_map, as Keras 3's TimeDistributed does if the number of time steps is unknown: "
                "give the time axis a fixed length, or call the layer without TimeDistributed"
            )

    def _check_backward(self, a: tf.Tensor) -> None:
        """Raises ValueError in the gradient of a loop or branch that the tape encloses.

        Such a gradient has a graph of its own, into which TensorFlow cannot carry the counters. A step inside a loop, its tape
        included, is differentiated in the graph in which it was called.
        """
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        if graph is not None and graph is not getattr(a, "graph", graph) and is_loop_or_branch(graph):
            raise ValueError(
                "called inside tf.while_loop, tf.map_fn or tf.cond, through which its gradient cannot be counted: write "
                "the loop in Python, or compile the model with run_eagerly=True"
            )

    def _identity(self, output: tf.Tensor) -> tf.Tensor:
        source = _before_relu(output) if self.counters.measuring else output

        keys, neurons = (self.relu.key,), (int(output.shape[self.relu.axis]),)

        @tf.custom_gradient
        def identity(a: tf.Tensor) -> Any:
            self.counters.record(ForwardPass(keys, neurons, self.relu, a, a if source is output else source))
            counted = CountedGradients()

            def backward(gradient: Any) -> Any:
                passed = tf.identity(gradient)  # its consumers tell whether the gradient is used
                try:
                    self._check_backward(a)
                    # The rows of a Jacobian are not the gradients of a loss.
                    if not (self.counters.is_frozen(self.relu) or is_inside_vectorized_map()):
                        self.counters.record(BackwardPass(keys, neurons, self.relu, a, passed, counted))
                except Exception as error:
                    self.counters.leave_out(keys, reason(error))
                return passed

            return tf.identity(a), backward

        result = identity(output)
        forget_gradient_with(self.counters.model, result)
        return result


@tf.autograph.experimental.do_not_convert
@contextmanager
def attached(counters: Counters) -> Iterator[None]:
    """Attaches a probe to each counted layer during the block. Re-entrant, because replicas trace in several threads."""
    with _lock:
        counters.users += 1
    try:
        with _lock:
            for relu in counters.relus.values() if not counters.detach else ():
                counters.detach.append(_attach(relu, counters))
        yield
    finally:
        with _lock:
            counters.users -= 1
            while not counters.users and counters.detach:
                counters.detach.pop()()


def _attach(relu: ReluLayer, counters: Counters) -> Callable[[], None]:
    """Wraps the `call` of the layer instance; returns a function that restores exactly what was there."""
    layer, probe = relu.layer, Probe(relu, counters)
    if layer is None:
        return lambda: None
    name = "quantized_call" if getattr(layer, "quantization_mode", None) else "call"  # the one that Keras 3 calls
    call = getattr(layer, name)
    call = getattr(call, _WRAPPED, call)  # with two probes the inner one counts, as for `measure` inside `watch`

    def counted(*args: Any, **kwargs: Any) -> Any:
        return probe(call(*args, **kwargs))

    setattr(counted, _WRAPPED, call)
    return patch_instance(layer, name, counted)


def _before_relu(output: tf.Tensor) -> tf.Tensor:
    """Returns the pre-activation if the graph shows it, else the output: oneDNN's fused MatMul + bias + ReLU turns NaN into 0.

    Reading the pre-activation undoes the fusion. A training step does not read it, because its results must stay bit-identical;
    there, NaN show in the weights after one update.
    """
    if tf.executing_eagerly():
        return output
    op = output.op
    while op.type in _AFTER_RELU:
        op = op.inputs[0].op
    return op.inputs[0] if op.type in ("Relu", "Relu6") else output
