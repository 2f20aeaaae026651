"""What is kept of a model's counts between its steps, and how it is read as a report."""

import weakref
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from relu_probe.counting.counter_blocks import CounterBlocks
from relu_probe.counting.hidden_relus import unsearched
from relu_probe.counting.layer_reports import layer_report
from relu_probe.counting.step_counter import StepCounter
from relu_probe.counting.watched_functions import WatchedFunctions
from relu_probe.report.report import Report
from relu_probe.structure.call_owners import call_owners
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.weights import is_frozen_in


class CounterState:
    """The variables of one model's counts, the ReLUs that are counted, and why others are not. It does not keep the model alive.

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
        self._model = weakref.ref(model)
        # When the newest step was traced: Keras 3 goes on with that trace until compile().
        self._frozen: set[str] = set()
        counter = StepCounter(self.strategy, calls=calls) if steps or calls else None
        self.blocks = CounterBlocks(self.strategy, steps=counter, activation_sum=activation_sum)
        self.functions: dict[str, ReluLayer] = {}  # ReLUs written as functions, found in traced steps
        self.watched, self._unsearched_named = WatchedFunctions(), False

    @property
    def model(self) -> Any:
        """The model, None if it is gone."""
        return self._model()

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
        if self.watched.name_outside(self):
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

    def _name_unsearched(self) -> None:
        if not self._unsearched_named:
            self.unseen |= unsearched(self.model)
            self._unsearched_named = True
