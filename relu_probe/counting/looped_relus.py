"""ReLUs in the loop of an RNN layer over its time steps: their gradients, and their increments of a step.

A loop adds up the gradient by a tensor from outside over all its time steps. So the number of positions with a gradient is made the
gradient by a vector of zeros, `(neurons,)`, that the loop captures. It is float64, which counts exactly up to 2^53.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from relu_probe.counting import kernels
from relu_probe.counting.batch_rows import Rows, rows_of
from relu_probe.counting.batch_samples import Batch, largest, samples_of
from relu_probe.counting.call_counts import CallCounts
from relu_probe.counting.layer_counts import LayerIncrements
from relu_probe.counting.passes import BackwardPass, CountedGradients, ForwardPass, calls_of, masks_of
from relu_probe.counting.step_totals import LayerTotals
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.utils.tensorflow_private import forget_gradient_with


class LoopedRelu(NamedTuple):
    """A ReLU of a cell, in one call of its RNN layer.

    Args:
        relu: what it is counted as.
        sequences: `(batch, time, ...)`, which the RNN layer was called on.
        zeros: `(neurons,)`, by which the gradient is the number of positions with a gradient.
        body: the graph of the loop's body.
    """

    relu: ReluLayer
    sequences: tf.Tensor
    zeros: tf.Tensor
    body: Any

    def samples(self, batch: Batch | None) -> Rows:
        """Returns the number of samples that the RNN layer saw."""
        rows = rows_of(self.sequences)
        return rows if batch is None else samples_of(self.sequences, rows, 1, batch)


def plain_zeros(neurons: int, number: int) -> list[tf.Tensor]:
    """Returns vectors of zeros, for a loss that is differentiated by them."""
    return [tf.zeros(neurons, tf.float64) for _ in range(number)]


def watched_zeros(
    neurons: int, number: int, anchors: list[tf.Tensor], receive: Callable[..., None], model: Any
) -> list[tf.Tensor]:
    """Returns vectors of zeros whose gradients are passed to `receive` if a tape goes backwards through the loop.

    Args:
        neurons: the length of each vector.
        number: the number of vectors.
        anchors: what the loop is computed from, so that a tape that watches the loop also watches the vectors. They get no gradient.
        receive: takes one gradient for each vector.
        model: the model that runs the loop.
    """

    @tf.custom_gradient
    def make(*anchors: tf.Tensor) -> Any:
        def backward(*gradients: tf.Tensor) -> Any:
            receive(*gradients)
            return [None] * len(anchors)

        return tuple(plain_zeros(neurons, number)), backward

    zeros = make(*anchors)
    forget_gradient_with(model, zeros[0])
    return list(zeros)


def with_counted_gradient(forward: ForwardPass, zeros: tf.Tensor, model: Any) -> tf.Tensor:
    """Returns the output of a pass in the loop unchanged, and makes the number of positions with a gradient the gradient by `zeros`."""
    output, axis = forward.output, forward.relu.axis

    @tf.custom_gradient
    def identity(a: tf.Tensor, _: tf.Tensor) -> Any:
        def backward(gradient: tf.Tensor) -> Any:
            each = BackwardPass(*forward[:4], tf.convert_to_tensor(gradient), CountedGradients())
            (call,) = calls_of([each], all_passes=True)
            (counts,) = kernels.plan(output.shape, axis, None)(masks_of(call), axis)
            return gradient, tf.cast(counts, tf.float64)

        return tf.identity(a), backward

    result = identity(output, zeros)
    forget_gradient_with(model, result)
    return result


def looped_increments(
    relus: Iterable[LoopedRelu], gradients: Mapping[int, Any], batch: Batch | None, *, activation_sum: bool
) -> list[LayerIncrements]:
    """Returns the samples and the positions with a gradient of ReLUs in loops; all else is counted in the loop itself.

    Args:
        relus: the ReLUs, in each call of their RNN layers.
        gradients: those by their zeros, by `id(zeros)`.
        batch: the batch of the step, None if it is not known.
        activation_sum: whether activations are summed.
    """
    calls: dict[str, list[LoopedRelu]] = {}
    for relu in relus:
        calls.setdefault(relu.relu.key, []).append(relu)
    return [_increments(each, gradients, batch, activation_sum) for each in calls.values()]


def _increments(
    calls: list[LoopedRelu], gradients: Mapping[int, Any], batch: Batch | None, activation_sum: bool
) -> LayerIncrements:
    neurons = int(calls[0].zeros.shape[0])
    # A cell that stands twice in a stack is called twice in a loop, which adds up both of its gradients.
    zeros = dict.fromkeys(id(call.zeros) for call in calls)
    found = [gradients[each] for each in zeros if each in gradients]
    with_gradient = tf.cast(tf.add_n(found), tf.int64) if found else tf.zeros(neurons, tf.int64)
    return LayerIncrements(
        (calls[0].relu.key,),
        (neurons,),
        CallCounts([tf.zeros(neurons, tf.int64), with_gradient], tf.constant(False), lambda: tf.zeros(neurons, bool)),
        tf.zeros(neurons, tf.float64) if activation_sum else None,
        LayerTotals([], [(largest([call.samples(batch) for call in calls]), 1)], [(1, 1)] if found else [], []),
    )
