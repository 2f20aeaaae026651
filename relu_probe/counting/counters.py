"""The counters of a model: variables that add up the counts of each step, and are read as `LayerReport`s.

The passes of one training step are gathered, and their counts are added at the end of the step for all layers together. A call in
another graph than the step's (a loop, a nested `tf.function`) is added immediately, to a separate block.
"""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import tensorflow as tf

from relu_probe.counting.batch_rows import tensors_of
from relu_probe.counting.batch_samples import Batch
from relu_probe.counting.concat_layers import concat_narrow_layers
from relu_probe.counting.counter_blocks import CounterBlocks
from relu_probe.counting.eager_operations import EagerOperations
from relu_probe.counting.hidden_relus import unsearched
from relu_probe.counting.layer_counts import LayerIncrements
from relu_probe.counting.layer_reports import layer_report
from relu_probe.counting.looped_relus import looped_increments
from relu_probe.counting.outermost_calls import OutermostCalls
from relu_probe.counting.passes import BackwardPass, ForwardPass
from relu_probe.counting.shared_functions import SharedFunctions
from relu_probe.counting.step_counter import StepCounter
from relu_probe.counting.step_passes import differentiate, gathered_passes, looped_gradients, search
from relu_probe.counting.step_trace import StepTrace, current_graph
from relu_probe.report.report import Report
from relu_probe.structure.call_owners import call_owners
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.weights import is_frozen, is_frozen_in
from relu_probe.utils.error_policy import reason
from relu_probe.utils.tensorflow_private import is_compiled_by_xla, is_inside_vectorized_map


class Counters:
    """The counts of one model's ReLU layers. It does not keep the model alive.

    Args:
        model: the Keras model; also gives the default of `strategy`.
        relus: the layers to count.
        activation_sum: keep the sums of the activations.
        steps: keep the training step at which each neuron was last active.
        calls: also count calls outside of a step, and keep the call of the model in which each neuron was last active.
        measuring: also count backward passes that training would not use, and look for NaN before the activation.
        strategy: the distribution strategy to count in; None for the model's own.
    """

    def __init__(
        self,
        model: Any,
        relus: list[ReluLayer],
        *,
        activation_sum: bool = False,
        steps: bool = False,
        calls: bool = False,
        measuring: bool = False,
        strategy: Any = None,
    ) -> None:
        self.relus = {relu.key: relu for relu in relus}
        self.activation_sum = activation_sum
        self.measuring = measuring
        self.everywhere = calls
        self.strategy = model.distribute_strategy if strategy is None else strategy
        self.jit = getattr(model, "jit_compile", None) is True
        self.failure: Exception | None = None  # why nothing could be counted
        self.unseen: dict[str, str] = {}  # layer -> why this layer alone cannot be counted
        self.untraceable: Exception | None = (
            None  # why a step could not be traced: see measuring/counted_train_function.py
        )
        self.users = 0  # of the attached probes; `detach` removes the probes: see probe.py
        self.detach: list[Callable[[], None]] = []
        self._model = weakref.ref(model)
        self._widths: dict[str, int] = {}
        # When the newest step was traced: Keras 3 goes on with that trace until compile().
        self._frozen: set[str] = set()
        counter = StepCounter(self.strategy, calls=calls) if steps or calls else None
        self.blocks = CounterBlocks(self.strategy, steps=counter, activation_sum=activation_sum)
        self._shared = SharedFunctions()
        self.functions: dict[str, ReluLayer] = {}  # ReLUs written as functions, found in traced steps
        self._unsearched_named = False
        self.outermost = OutermostCalls(self._begin_call)
        self._local = threading.local()  # each replica of a MirroredStrategy traces in its own thread

    @property
    def model(self) -> Any:
        """The model, None if it is gone."""
        return self._model()

    # --- while a step is traced or run --------------------------------------------------------------------------------

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
        found = [self._increments(layer, whole, xla=self.jit, shared=self._shared) for layer in layers]
        loops = looped_increments(trace.loops, gradients, whole, activation_sum=self.activation_sum)
        self.blocks.add([layer for layer in [*found, *loops] if layer is not None], self.jit, step, batch)

    def _search(self, trace: StepTrace) -> None:
        """Adds the outputs of ReLUs that are written as functions to the trace, and names those that cannot be counted."""
        if trace.graph is None:
            self._name_unsearched()
        self.unseen = search(trace, self.relus) | self.unseen
        self.functions |= {each.relu.key: each.relu for each in trace.outputs if each.relu.key not in self.relus}

    def _name_unsearched(self) -> None:
        if not self._unsearched_named:
            self.unseen |= unsearched(self.model)
            self._unsearched_named = True

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

    def leave_out(self, keys: Iterable[str], why: str) -> None:
        """Notes why these layers cannot be counted; the first reason stays."""
        for key in keys:
            self.unseen.setdefault(key, why)

    def traces(self, relus: list[ReluLayer]) -> bool:
        """Whether a step that was traced with these counters counts `relus`. A trace that failed is not used again."""
        return self.failure is None and list(self.relus.values()) == relus

    def variables(self) -> list[tf.Variable]:
        """Returns the variables of the counts: see `CounterBlocks`."""
        return self.blocks.variables()

    def reset(self, steps: int | None = None) -> None:
        """Sets the counts to zero: see `CounterBlocks`."""
        self.blocks.reset(steps)

    def restart(self) -> None:
        """Sets everything to zero at the beginning of a fit."""
        self.blocks.reset(0)
        self.blocks.reset_last_active()

    def give_up(self) -> None:
        """Lets the training continue without counting; whoever reads the counters gets the error."""
        error, self.untraceable = self.untraceable, None  # its traceback holds a graph
        self.failure = RuntimeError(f"the training step cannot be counted: {type(error).__name__}: {error}")

    def check(self, steps: int) -> None:
        """Raises the error that kept these training steps from being counted, if there is one."""
        if self.failure is not None:
            raise self.failure
        if steps and self.relus and not self.blocks and not self.unseen:
            raise RuntimeError(
                f"no ReLU layer was called in {steps:,} training steps; expected the steps to call the model's layers. A "
                "make_train_function of your own has to call self.train_step."
            )

    def all_relus(self) -> list[ReluLayer]:
        """Returns the ReLU layers, and the ReLUs written as functions that traced steps have shown, in the model's order."""
        found = [*self.relus.values(), *self.functions.values()]
        if not self.functions:
            return found
        order = {id(owner.layer): i for i, owner in enumerate(call_owners(self.model, []))}
        return sorted(found, key=lambda relu: order.get(id(relu.layer), 0) or len(order))  # the model's own last

    def report(self, source: str, *, activation_sum: bool = True, gradients: bool | None = None) -> Report:
        """Returns the global counts, of all replicas and workers. A collective operation: every worker has to call it.

        Args:
            source: the report's `source`.
            activation_sum: whether the report includes the sums of the activations.
            gradients: whether the steps computed gradients of a loss: then a layer that no backward pass reached has no path
                from the loss, and no gradient at any position. None if some backward pass has to show it.

        Raises:
            ValueError: a layer was called on too many samples in one step.
        """
        if self.everywhere:
            self._name_unsearched()
        found = self.blocks.read(activation_sum=activation_sum)
        gradients = any(c.backward for part in found.values() for c in part) if gradients is None else gradients
        parts = {relu: found.get(relu.key, []) for relu in self.all_relus()}
        layers = {
            relu.key: layer_report(
                relu, part, gradients=gradients, is_frozen=self._is_frozen_now, dated=self.blocks.steps is not None
            )
            for relu, part in parts.items()
            if part and relu.key not in self.unseen
        }
        last = None if self.blocks.steps is None else self.blocks.steps.last
        never = tuple(relu.key for relu, part in parts.items() if not part and relu.key not in self.unseen)
        return Report(layers, source=source, unseen=self.unseen, never_called=never, last_step=last)

    def _is_frozen_now(self, relu: ReluLayer) -> bool:
        """Whether the steps compute no gradient for the layer, if no backward pass has reached it."""
        return relu.key in self._frozen or is_frozen_in(self.model, relu.layer)
