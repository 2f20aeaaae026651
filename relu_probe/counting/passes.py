"""Forward and backward passes of a ReLU layer, and the masks of positions that are active and that received a gradient."""

from collections.abc import Iterable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.counting.eager_operations import BOUNDS, RecordedTensor, static_value
from relu_probe.counting.kernels import Mask
from relu_probe.counting.shared_constants import zero_of
from relu_probe.structure.relu_layers import ReluLayer

_AFTER_RELU = ("Identity", "Minimum", "Maximum", "Mul", "Square")  # follow the ReLU if it is bounded or squared


class CountedGradients:
    """The positions of one call that were already counted with a gradient, so that a second tape adds only new positions."""

    def __init__(self) -> None:
        self._mask: tf.Tensor | None = None

    def add(self, mask: tf.Tensor) -> tf.Tensor:
        """Returns the positions of `mask` that are new. Masks of different graphs cannot be compared: all are new then."""
        before = self._mask
        if before is None or not (tf.executing_eagerly() or before.graph is mask.graph):
            self._mask = mask
            return mask
        self._mask = mask | before
        return mask & ~before


class ForwardPass(NamedTuple):
    """The output of one call of a layer, or of several layers whose outputs are concatenated."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]  # of each key
    relu: ReluLayer  # of the first key
    output: tf.Tensor
    source: tf.Tensor  # where NaN are looked for: the output or the pre-activation


class BackwardPass(NamedTuple):
    """A gradient that arrived at the output of one call."""

    keys: tuple[str, ...]
    neurons: tuple[int, ...]
    relu: ReluLayer
    output: tf.Tensor
    gradient: tf.Tensor  # dL/da, as the probe passes it on
    counted: CountedGradients
    unbounded: tf.Tensor | None = None  # as in `before_bound`


class LayerCall(NamedTuple):
    """One call of a layer, with all its passes that a step has gathered."""

    output: tf.Tensor
    source: tf.Tensor | None = None  # None if the forward pass was counted separately
    gradients: tuple[tf.Tensor, ...] = ()  # one for each backward pass: dL/dz or dL/da
    ceiling: float | None = None
    counted: CountedGradients | None = None  # None if all backward passes are in `gradients`


def calls_of(passes: Iterable[ForwardPass | BackwardPass], *, all_passes: bool) -> list[LayerCall]:
    """Returns the calls of one layer. The output tensor identifies a call.

    Args:
        passes: the passes of the layer.
        all_passes: whether these are all passes of the step, so that no position can have been counted before.
    """
    calls: dict[int, LayerCall] = {}
    for each in passes:
        call = calls.get(id(each.output), LayerCall(each.output))
        if isinstance(each, ForwardPass):
            call = call._replace(source=each.source)
        else:
            call = call._replace(
                gradients=(
                    *call.gradients,
                    _where_at_most(each.relu.ceiling, each.unbounded, pre_activation_gradient(each)),
                ),
                ceiling=each.relu.ceiling if each.unbounded is None else None,
                counted=None if all_passes else each.counted,
            )
        calls[id(each.output)] = call
    return list(calls.values())


def before_bound(output: Any, ceiling: float | None) -> tf.Tensor | None:
    """Returns x of the operation `min(x, ceiling)` that bounds an output; None if there is none.

    Where x equals the ceiling, a minimum passes the gradient on, and Relu6 does not.

    Args:
        output: a tensor of a graph, or the record of an eager one.
        ceiling: the bound of the ReLU; None if it has none.
    """
    if ceiling is None:
        return None
    op, rank = output.op, output.shape.rank
    while op.type in ("Identity", "Maximum", "Relu"):
        op = next((each for each in op.inputs if each.shape.rank == rank), op.inputs[0]).op
    if op.type not in BOUNDS:
        return None
    values = [static_value(each) for each in op.inputs]
    is_bound = any(value is not None and (value == np.asarray(ceiling, value.dtype)).all() for value in values)
    x = next((each for each, value in zip(op.inputs, values) if value is None), None) if is_bound else None
    return x.value if isinstance(x, RecordedTensor) else x


def _where_at_most(ceiling: float | None, values: tf.Tensor | None, gradient: tf.Tensor) -> tf.Tensor:
    if values is None:
        return gradient
    return tf.where(values <= tf.cast(ceiling, values.dtype), gradient, tf.zeros_like(gradient))


def pre_activation_gradient(backward: BackwardPass) -> tf.Tensor:
    """Returns dL/dz if the graph shows it, else dL/da; they differ where the neuron is off.

    If only the ReLU's own backward pass reads dL/da, TensorFlow overwrites it in place; another reader would cost a copy.
    """
    if not tf.executing_eagerly() and backward.relu.ceiling is None:
        for op in backward.gradient.consumers():
            if op.type == "ReluGrad" and op.inputs[0] is backward.gradient and op.inputs[1] is backward.output:
                return op.outputs[0]
    return backward.gradient


def masks_of(call: LayerCall) -> list[Mask]:
    """Returns the mask of active positions and the mask of positions with a gradient, if the call has such a pass.

    dL/dz = dL/da * relu'(z) is zero where the neuron is off, even if dL/da is infinite there.
    """
    active = call.output > zero_of(call.output)
    masks = [] if call.source is None else [[active]]
    return [*masks, [_gradient_mask(call), active]] if call.gradients else masks


def _gradient_mask(call: LayerCall) -> tf.Tensor:
    """Returns where a gradient arrives in any backward pass. At the ceiling of a bounded ReLU, relu'(z) is zero.

    A cast to bool runs in one thread. A comparison would wait for a second thread, which a matrix product keeps busy.
    """
    mask = reduce(tf.logical_or, [tf.cast(gradient, tf.bool) for gradient in call.gradients])
    if call.ceiling is not None:
        mask &= call.output != tf.cast(call.ceiling, call.output.dtype)
    return mask if call.counted is None else call.counted.add(mask)


def before_relu(output: tf.Tensor) -> tf.Tensor:
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
