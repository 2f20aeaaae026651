"""The increments of one step: tensors to be added to the counts of a layer."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import reduce
from typing import Any, NamedTuple

import tensorflow as tf

from relu_probe.counting.activation_sums import activation_sums
from relu_probe.counting.batch_rows import Rows
from relu_probe.counting.batch_samples import Batch
from relu_probe.counting.call_counts import CallCounts, count_call
from relu_probe.counting.passes import BackwardPass, ForwardPass, LayerCall, calls_of
from relu_probe.counting.shared_functions import SharedFunctions
from relu_probe.counting.step_totals import LayerTotals
from relu_probe.structure.relu_layers import ReluLayer


class LayerIncrements(NamedTuple):
    """The increments of one layer, or of several concatenated layers; each vector has all their neurons."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]  # of each key
    positions: CallCounts
    activation_sum: Any  # (neurons,) float64, None if it was not asked for
    totals: LayerTotals

    @classmethod
    def of(
        cls,
        passes: list[ForwardPass | BackwardPass],
        batch: Batch | None = None,
        *,
        xla: bool | None = None,
        activation_sum: bool = False,
        shared: SharedFunctions | None = None,
    ) -> "LayerIncrements":
        """Counts the passes of one layer.

        Args:
            passes: all passes of one step, or a single pass outside of the step's graph.
            batch: the batch of the step; None outside of its graph.
            xla: whether XLA compiles the counting, None if that is not known.
            activation_sum: whether to sum the outputs.
            shared: the shared functions of the model; None outside of the step's graph.

        Raises:
            ValueError: the output is not of a floating type.
        """
        keys, neurons, relu, output, *_ = passes[0]
        if not output.dtype.is_floating:
            raise ValueError(f"its output is {output.dtype.name}, expected a floating type")
        calls = calls_of(passes, all_passes=shared is not None)
        with tf.device(output.device):  # where the user placed the layer
            if relu.flattened:
                with batch.operations.recorded([]) if batch and batch.operations else nullcontext():
                    calls = [_neurons_last(call, relu) for call in calls]
            positions = reduce(CallCounts.plus, [count_call(call, relu.axis, xla, shared) for call in calls])
            loops = shared is not None and shared.loops and xla is False  # XLA makes no copy of a batch
            sums = _activation_sum(calls, relu.axis, loops) if activation_sum else None
            return cls(keys, neurons, positions, sums, LayerTotals.of(calls, relu.axis, batch, xla))

    def with_samples(self, change: Callable[[Rows], Rows]) -> "LayerIncrements":
        """Returns the increments with another number of samples: a function of theirs."""
        return self._replace(totals=self.totals.with_samples(change))


def _neurons_last(call: LayerCall, relu: ReluLayer) -> LayerCall:
    """Returns the call with the flattened axes of an `EinsumDense` layer as the last one."""
    return call._replace(
        output=relu.neurons_last(call.output),
        source=None if call.source is None else relu.neurons_last(call.source),
        gradients=tuple(map(relu.neurons_last, call.gradients)),
    )


def _activation_sum(calls: list[LayerCall], axis: int, loops: bool) -> tf.Tensor:
    outputs = [call.output for call in calls if call.source is not None]
    if not outputs:
        return tf.zeros(calls[0].output.shape[axis], tf.float64)
    return tf.add_n([activation_sums(output, axis, loops=loops) for output in outputs])
