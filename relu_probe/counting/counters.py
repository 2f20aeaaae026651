"""The counters of a model: they gather the passes of each step through its ReLUs, and add up their counts.

The passes of one training step are gathered, and their counts are added at the end of the step for all layers together. A call in
another graph than the step's (a loop, a nested `tf.function`) is added immediately, to a separate block.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import tensorflow as tf

from relu_probe.counting.batch_rows import tensors_of
from relu_probe.counting.batch_samples import Batch
from relu_probe.counting.concat_layers import concat_narrow_layers
from relu_probe.counting.counter_state import CounterState
from relu_probe.counting.eager_operations import EagerOperations
from relu_probe.counting.layer_counts import LayerIncrements
from relu_probe.counting.looped_relus import looped_increments
from relu_probe.counting.outermost_calls import OutermostCalls
from relu_probe.counting.passes import BackwardPass, ForwardPass
from relu_probe.counting.shared_functions import FEW_LAYERS, SharedFunctions
from relu_probe.counting.step_passes import differentiate, gathered_passes, looped_gradients, search
from relu_probe.counting.step_trace import StepTrace, current_graph
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.run_settings import unrolls_steps
from relu_probe.structure.weights import is_frozen, is_frozen_in
from relu_probe.utils.error_policy import reason
from relu_probe.utils.tensorflow_private import is_compiled_by_xla, is_debugged, is_inside_vectorized_map


class Counters(CounterState):
    """Adds up the counts of a model's steps. For the arguments, see `CounterState`."""

    def __init__(self, model: Any, relus: list[ReluLayer], **options: Any) -> None:
        super().__init__(model, relus, **options)
        self.users = 0  # of the attached probes; `detach` removes the probes: see probe.py
        self.detach: list[Callable[[], None]] = []
        self.outermost = OutermostCalls(self._begin_call)
        self._widths: dict[str, int] = {}
        self._shared = SharedFunctions(loops=self.measuring or not unrolls_steps(model))
        self._local = threading.local()  # each replica of a MirroredStrategy traces in its own thread

    @property
    def trace(self) -> StepTrace | None:
        """What this thread gathers of the step that it is tracing or running; None outside of a step."""
        trace: StepTrace | None = getattr(self._local, "trace", None)
        return trace

    @property
    def operations(self) -> EagerOperations | None:
        """The record of the eager step, or of the outermost call in a `watch`, that this thread runs; None in a graph."""
        within = self.trace or self.outermost.current
        return None if within is None else within.operations

    @tf.autograph.experimental.do_not_convert
    @contextmanager
    def step(self, data: Any, *, differentiated: bool = False) -> Iterator[None]:
        """Gathers the passes inside the block, and adds their counts at its end.

        Args:
            data: the batch of the step.
            differentiated: whether the block ends in `differentiate`.
        """
        if self.trace is not None:  # a train_step inside a train_step
            yield
            return
        trace = self._local.trace = StepTrace(current_graph(), differentiated)
        try:
            with nullcontext() if trace.operations is None else trace.operations.recorded(self.detach):
                yield
        finally:
            self._local.trace = None
        try:
            with tf.name_scope("relu_probe"):
                self._add_step(trace, data)
        except Exception as error:  # counting never stops a training: whoever reads the counters gets the error
            self.failure = error
        finally:
            if trace.operations is not None:
                trace.operations.forget_values()

    def abandon_step(self) -> None:
        """Forgets a step, or a call of the model, whose end an interrupt has kept from being noted."""
        self._local = threading.local()
        self.outermost.forget()
        self.watched.forget()

    def differentiate(self, loss: tf.Tensor, others: Iterable[tf.Tensor] = ()) -> list[Any]:
        """Computes the gradients of the loss by the outputs of all ReLUs, and returns those by `others`; None for no path.

        An eager step has to record its forward pass on the tape `trace.tape`.
        """
        assert self.trace is not None, "inside of a step"
        self.trace.results.append(loss)
        self._search(self.trace)
        return differentiate(self.trace, loss, list(others))

    def _begin_call(self) -> None:
        """Numbers a call of the model. One inside a `tf.vectorized_map`, which cannot assign, has the number of the call before."""
        if self.everywhere and self.blocks.steps is not None and not is_inside_vectorized_map():
            with suppress(Exception), tf.name_scope("relu_probe"):  # a probe never stops a training
                self.blocks.steps.begin()

    def is_frozen(self, relu: ReluLayer) -> bool:
        """Whether training cannot use a gradient of this layer; False where all count, or the step's operations tell which are used."""
        in_step = self.trace is not None and self.trace.graph is current_graph()
        return not (self.measuring or in_step) and is_frozen(relu.layer, self._model())

    def record(self, each: ForwardPass | BackwardPass) -> None:
        """Counts one pass through a layer, at the end of the step, or immediately in another graph."""
        trace = self.trace
        if trace is not None and trace.graph is current_graph():
            trace.passes.append(each)
        elif self._has_one_width(each):
            with tf.name_scope("relu_probe"):
                self._add_pass(each)

    def record_in_loop(self, each: ForwardPass) -> None:
        """Counts one time step of an RNN layer immediately, apart from samples: it sees the same ones at all time steps."""
        self.functions.setdefault(each.relu.key, each.relu)
        with tf.name_scope("relu_probe"):
            self._add_pass(each, in_loop=True)

    def _has_one_width(self, each: ForwardPass | BackwardPass) -> bool:
        (key,), neurons = each.keys, each.neurons[0]
        if (width := self._widths.setdefault(key, neurons)) != neurons:
            self.leave_out([key], f"called with {width} and with {neurons} neurons, expected one ReLU layer for each")
        return width == neurons

    def _add_step(self, trace: StepTrace, data: Any) -> None:
        batch = tensors_of(data)
        step = None if self.blocks.steps is None else self.blocks.steps.count(batch)
        self._search(trace)
        passes = gathered_passes(trace, self.model, measuring=self.measuring)
        passes = [each for each in passes if self._has_one_width(each)]
        gradients = looped_gradients(trace, self.model, measuring=self.measuring)
        reached = {key for each in passes if isinstance(each, BackwardPass) for key in each.keys}
        self._frozen = {key for key in self.relus.keys() - reached if is_frozen_in(self.model, self.relus[key].layer)}
        if not self.measuring:
            passes = concat_narrow_layers(passes)
        layers = [[each for each in passes if each.keys == keys] for keys in dict.fromkeys(p.keys for p in passes)]
        whole = Batch.of(data, trace.operations)
        # In many layers NaN are found by the largest values, which are -inf in an empty batch: a debugger would report them.
        self._shared.many_layers = len(layers) > FEW_LAYERS and not is_debugged()
        found = [self._increments(layer, whole, xla=self.jit, shared=self._shared) for layer in layers]
        loops = looped_increments(trace.loops, gradients, whole, activation_sum=self.activation_sum)
        self.blocks.add([layer for layer in [*found, *loops] if layer is not None], self.jit, step, batch)

    def _search(self, trace: StepTrace) -> None:
        """Adds the outputs of ReLUs that are written as functions to the trace, and names those that cannot be counted."""
        if trace.graph is None:
            self._name_unsearched()
        self.unseen = search(trace, self.relus) | self.unseen
        self.functions |= {each.relu.key: each.relu for each in trace.outputs if each.relu.key not in self.relus}

    def _add_pass(self, each: ForwardPass | BackwardPass, *, in_loop: bool = False) -> None:
        """Adds the counts of one pass immediately."""
        call = self.outermost.current
        xla = is_compiled_by_xla() or None  # a function that was traced without XLA may be called where XLA compiles it
        if (layer := self._increments([each], call and call.batch, xla=xla, shared=None)) is not None:
            layer = layer.with_samples(lambda _: 0) if in_loop else layer
            layers = [layer if call is None else call.with_new_samples(layer)]
            self.blocks.add(layers, xla, None if self.blocks.steps is None else self.blocks.steps.current(), [])

    def _increments(self, passes: list[ForwardPass | BackwardPass], batch: Any, **how: Any) -> LayerIncrements | None:
        try:
            return LayerIncrements.of(passes, batch, activation_sum=self.activation_sum, **how)
        except Exception as error:  # the other layers are still counted
            self.leave_out(passes[0].keys, reason(error))
            return None
