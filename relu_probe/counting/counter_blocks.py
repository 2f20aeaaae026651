"""All variables that are kept for a model: the blocks of its counters, and the number of the step."""

import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from relu_probe.counting.counter_block import BlockKey, CounterBlock, LayerCounts
from relu_probe.counting.layer_counts import LayerIncrements
from relu_probe.counting.step_counter import StepCounter


class CounterBlocks:
    """The blocks of a model's counters, each made when its layers are first counted together.

    Args:
        strategy: the distribution strategy, in whose scope the variables are made.
        steps: counts the steps, to keep the one at which each neuron was last active; None if that is not kept.
        activation_sum: keep the sums of the activations.
    """

    def __init__(self, strategy: Any, *, steps: StepCounter | None, activation_sum: bool) -> None:
        self._strategy, self._activation_sum = strategy, activation_sum
        self._blocks: dict[BlockKey, CounterBlock] = {}
        self._lock = threading.RLock()  # each replica of a MirroredStrategy traces in its own thread
        self.steps = steps

    def __len__(self) -> int:
        return len(self._blocks)

    def add(
        self,
        layers: list[LayerIncrements],
        xla: bool | None,
        step: Callable[[], Any] | None,
        batch: list[tf.Tensor],
    ) -> None:
        """Adds the counts of layers to their block; `xla` as for `BlockKey.of`, `step` and `batch` as for `CounterBlock.add`."""
        if not layers:
            return
        key = BlockKey.of(layers, self._strategy.num_replicas_in_sync, xla)
        with self._lock:
            if key not in self._blocks:
                dated, sums = self.steps is not None, self._activation_sum
                self._blocks[key] = CounterBlock(self._strategy, key, dated=dated, activation_sum=sums)
        self._blocks[key].add(layers, step, batch)

    def variables(self) -> list[tf.Variable]:
        """Returns all variables but that of the step: at most 44 bytes per neuron."""
        return [variable for block in self._blocks.values() for variable in block.variables]

    def reset(self, steps: int | None = None) -> None:
        """Sets the counts to zero. The steps of the last activity belong to the whole fit and stay.

        Args:
            steps: the training steps of this fit so far, if some were not counted; None if all were.
        """
        with self._strategy.scope():
            for block in self._blocks.values():
                block.reset()
            if steps is not None and self.steps is not None:
                self.steps.set(steps)

    def reset_last_active(self) -> None:
        """Forgets when the neurons were last active."""
        with self._strategy.scope():
            for block in self._blocks.values():
                block.reset_last_active()

    def read(self, *, activation_sum: bool) -> dict[str, list[LayerCounts]]:
        """Returns the global counts of each layer, one for each block that has it. A collective operation: every worker has to call it.

        Args:
            activation_sum: whether the counts include the sums of the activations.
        """
        found: dict[str, list[LayerCounts]] = {}
        with self._strategy.scope():
            for block in self._blocks.values():
                for key, counts in zip(block.key.keys, block.read()):
                    wanted = counts if activation_sum else counts._replace(activation_sum=counts.activation_sum[:0])
                    found.setdefault(key, []).append(wanted)
        return found
