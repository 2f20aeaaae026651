"""How are counts kept? O(neurons) of state for each model, read as `LayerReport`s.

What the calls of one training step count is gathered and added at its end, once for all layers. A call in another graph
than the step's (a loop, a nested `tf.function`) adds at once, to a block of its own.
"""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.counting.concat_layers import side_by_side
from relu_probe.counting.counter_block import Block, BlockKey, Counted, variables
from relu_probe.counting.deferred_nan import DeferredNanCounts
from relu_probe.counting.kernels import EXACT
from relu_probe.counting.layer_counts import LayerIncrements, batch_size, drop_unused_backward_passes
from relu_probe.counting.passes import BackwardPass, ForwardPass
from relu_probe.counting.step_counter import Clock, at
from relu_probe.report.layer_report import LayerReport
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.weights import is_frozen, nan_weights
from relu_probe.utils.error_policy import reason


class Counters:
    """The counts of one model's ReLU layers. It does not keep the model alive.

    Args:
        model: gives the strategy.
        relus: the counted layers.
        activation_sum: keep the sums of the activations too.
        steps: keep the training step at which each neuron was last active.
        measuring: count also the backward passes that no training would use, and look for NaN before the activation.
        strategy: the distribution strategy to count in; None for the model's own.
    """

    def __init__(
        self,
        model: Any,
        relus: list[ReluLayer],
        *,
        activation_sum: bool = False,
        steps: bool = False,
        measuring: bool = False,
        strategy: Any = None,
    ) -> None:
        self.relus = {relu.key: relu for relu in relus}
        self.activation_sum = activation_sum
        self.measuring = measuring
        self.strategy = model.distribute_strategy if strategy is None else strategy
        self.jit = getattr(model, "jit_compile", None) is True
        self.failure: Exception | None = None  # why nothing could be counted
        self.left_out: dict[str, str] = {}  # layer -> why it alone could not be
        self.untraceable: Exception | None = None  # why a counted training step could not be made: see stepping.py
        self.users = 0  # of the attached probes, and what takes them off again: see probe.py
        self.detach: list[Callable[[], None]] = []
        self._model = weakref.ref(model)
        self._widths: dict[str, int] = {}
        self._blocks: dict[BlockKey, Block] = {}
        self._local = threading.local()  # each replica of a MirroredStrategy traces in a thread of its own
        self._lock = threading.RLock()
        self._dated = steps
        self._clock: Clock | None = None
        self._steps = 0  # that were taken before there was one

    @property
    def model(self) -> Any:
        """None where it is gone."""
        return self._model()

    # --- while a step is traced or run --------------------------------------------------------------------------------

    @tf.autograph.experimental.do_not_convert
    @contextmanager
    def step(self, data: Any) -> Iterator[None]:
        """Gathers what the calls inside count, and adds it at the end, once; `data` is the step's batch."""
        if getattr(self._local, "gathered", None) is not None:  # a train_step inside a train_step
            yield
            return
        self._local.graph, self._local.gathered = _graph(), []
        try:
            yield
            gathered = self._local.gathered
        finally:
            self._local.gathered = None
        try:
            with tf.name_scope("relu_probe"):
                tallies = gathered if self.measuring else drop_unused_backward_passes(gathered, self._local.graph)
                self._add(tallies, batch_size(data), _tensors(data))
        except Exception as error:  # a count never stops a training; who reads the counters is told
            self.failure = error

    @contextmanager
    def sources(self, tape: tf.GradientTape) -> Iterator[list[Any]]:
        """While measuring: the outputs of the layers, watched, so that no gradient of a weight need be computed."""
        sources: list[Any] = []
        self._local.tape, self._local.sources = tape, sources
        try:
            yield sources
        finally:
            self._local.tape = None

    def watch(self, output: tf.Tensor) -> None:
        if (tape := getattr(self._local, "tape", None)) is not None:
            here = self._local.graph is _graph()
            tape.watch(output)
            self._local.sources.append(output if here else None)

    def is_frozen(self, relu: ReluLayer) -> bool:
        """Whether no training could use a gradient here. A measurement asks for it all the same."""
        return not self.measuring and is_frozen(relu.layer, self._model())

    def record(self, tally: ForwardPass | BackwardPass) -> None:
        (key,), neurons = tally.keys, tally.neurons[0]
        if (width := self._widths.setdefault(key, neurons)) != neurons:
            self._leave_out([key], f"called with {width} and with {neurons} neurons, expected one ReLU layer for each")
            return
        gathered = getattr(self._local, "gathered", None)
        if gathered is not None and self._local.graph is _graph():
            gathered.append(tally)
        else:
            with tf.name_scope("relu_probe"):
                self._add([tally])

    def _add(
        self, tallies: list[ForwardPass | BackwardPass], samples: Any = None, batch: list[tf.Tensor] | None = None
    ) -> None:
        """
        Args:
            tallies: of one step, or a single one.
            samples: of the step.
            batch: what the step was given; None in another graph than the step's.
        """
        gathered = batch is not None
        tallies = tallies if self.measuring else side_by_side(tallies)
        groups = [[t for t in tallies if t.keys == keys] for keys in dict.fromkeys(t.keys for t in tallies)]
        # A call in another graph than the step's may be in a function that the user has XLA compile.
        xla = self.jit if gathered else None
        sums = [one for group in groups if (one := self._sums(group, samples, xla)) is not None]
        sums.sort(key=lambda layers: not isinstance(layers.counts, DeferredNanCounts))
        if sums:
            block = self._block(BlockKey.of(sums, self.strategy.num_replicas_in_sync, xla))
            block.add(sums, self._clock_of(block if gathered else None), batch)
        elif batch is not None and (clock := self._clock_of(None)):
            with tf.control_dependencies(batch):
                clock.tick()

    def _block(self, kind: BlockKey) -> Block:
        with self._lock:
            if kind not in self._blocks:
                self._blocks[kind] = Block(
                    self.strategy, kind, dated=self._dated, steps=self._steps, activation_sum=self.activation_sum
                )
        return self._blocks[kind]

    def _clock_of(self, block: Block | None) -> Clock | None:
        """One for all blocks: a variable of its own, unless the first one can be `block`'s."""
        with self._lock:
            if self._dated and self._clock is None:
                if block is not None and block.replicas == 1:
                    self._clock = Clock(block.meta, block.kind.numbers.unit)
                else:
                    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
                    (variable,) = variables(self.strategy, at(self._steps, 1), aggregation=first)
                    self._clock = Clock(variable, 1)
        return self._clock

    def _sums(self, group: list[ForwardPass | BackwardPass], samples: Any, xla: bool | None) -> LayerIncrements | None:
        try:
            return LayerIncrements.of(group, samples, xla=xla, sums=self.activation_sum)
        except Exception as error:  # the other layers are counted all the same
            self._leave_out(group[0].keys, reason(error))
            return None

    def _leave_out(self, keys: Iterable[str], why: str) -> None:
        self.left_out |= {key: f"{key} not counted: {why}" for key in keys}

    def missing(self, keys: list[str]) -> str:
        """Why some of these layers have no counts, "" where all have."""
        return "; ".join(self.left_out[key] for key in keys if key in self.left_out)

    def traces(self, relus: list[ReluLayer]) -> bool:
        """Whether what was traced with these counters counts `relus`. A trace that failed is not used again."""
        return self.failure is None and list(self.relus.values()) == relus

    # --- between the steps --------------------------------------------------------------------------------------------

    def variables(self) -> list[tf.Variable]:
        """All state kept for the model: at most 56 bytes a neuron."""
        return [variable for block in self._blocks.values() for variable in block.all]

    def reset(self, steps: int | None = None) -> None:
        """Starts counting anew; the last active steps belong to the whole fit and stay.

        Args:
            steps: training steps of this fit so far, where some were taken without counting.
        """
        with self.strategy.scope():
            for block in self._blocks.values():
                block.reset()
            if steps is not None:
                self._steps = steps
                if self._clock is not None:
                    self._clock.set(steps)

    def restart(self) -> None:
        """A fit begins."""
        self.reset(0)
        with self.strategy.scope():
            for block in self._blocks.values():
                block.forget()

    def give_up(self) -> None:
        """The training goes on without being counted."""
        error = self.untraceable
        self.failure = RuntimeError(f"the training step cannot be counted: {type(error).__name__}: {error}")
        self.untraceable = None  # its traceback holds a graph

    def check(self, steps: int) -> None:
        """Raises what kept the counts of so many training steps from being whole."""
        if self.failure is not None:
            raise self.failure
        if steps and not self._blocks and not self.left_out:
            raise RuntimeError(
                f"no ReLU layer was called in {steps:,} training steps; expected the steps to call the model's layers. A "
                "make_train_function of your own has to call self.train_step."
            )

    def read(self, keys: list[str], activation_sum: bool = True) -> dict[str, LayerReport]:
        """The global counts, of all replicas and workers: a collective, which every worker has to call."""
        with self.strategy.scope():
            found = [pair for kind, block in self._blocks.items() for pair in zip(kind.keys, block.read(self._clock))]
        with_gradients = any(counted.backwards for _, counted in found)
        parts = {key: [one for name, one in found if name == key and key not in self.left_out] for key in keys}
        layers = {key: self._layer(self.relus[key], parts[key], with_gradients) for key in keys}
        return layers if activation_sum else {key: replace(layer, activation_sum=None) for key, layer in layers.items()}

    def _layer(self, relu: ReluLayer, parts: list[Counted], with_gradients: bool) -> LayerReport:
        if not any(part.positions for part in parts):
            neurons = len(parts[0].active) if parts else relu.width()
            return LayerReport(0, 0, np.zeros(neurons, np.int64), np.zeros(neurons, np.int64))
        total = reduce(Counted.__add__, parts)
        if total.too_large:
            raise ValueError(
                f"layer {relu.key!r} was called on more than {EXACT:,} samples in one step, too many to be counted "
                "exactly; expected smaller batches, or a batch size that the model knows (keras.Input(batch_size=...))."
            )
        reached = total.backwards > 0
        total.last.flags.writeable = False  # so that the report need not copy it
        return LayerReport(
            samples=total.samples,
            positions=total.positions,
            active=total.active,
            with_gradient=total.with_gradient if reached else None,
            nan=(total.nan > 0) | nan_weights(relu.layer, len(total.nan)),
            activation_sum=total.sums if self.activation_sum else None,
            last_active=total.last if self._dated else None,
            frozen=bool(with_gradients and not reached and is_frozen(relu.layer)),
        )


def _tensors(data: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(data, expand_composites=True) if isinstance(leaf, tf.Tensor)]


def _graph() -> Any:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
