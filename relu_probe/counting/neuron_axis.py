"""The axis of the neurons in the output of a ReLU operation: proved by the operations that made it, never assumed."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from relu_probe.structure.relu_layers import ReluLayer

_UNARY = (  # element by element: no axis moves
    *("Identity", "IdentityN", "Cast", "StopGradient", "CheckNumerics", "PreventGradient", "EnsureShape", "Snapshot"),
    *("Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh", "Softplus", "Softsign", "ClipByValue"),
    *("Neg", "Abs", "Square", "Sqrt", "Rsqrt", "Exp", "Expm1", "Log", "Log1p", "Erf", "Erfc", "Sin", "Cos"),
    *("Sign", "Floor", "Ceil", "Round", "Rint", "Reciprocal"),
)
_MOVING = (
    *("Reshape", "Transpose", "ExpandDims", "Squeeze", "Pad", "PadV2", "MirrorPad"),
    *("Sum", "Mean", "Max", "Min", "GatherV2", "Split", "StridedSlice", "Slice", "Pack"),
    *("UnsortedSegmentSum", "UnsortedSegmentMean", "SegmentSum", "SegmentMean"),
)
_ELEMENTWISE = (
    *("Add", "AddV2", "AddN", "Sub", "Mul", "MulNoNan", "RealDiv", "DivNoNan", "SquaredDifference", "Pow"),
    *("Maximum", "Minimum", "SelectV2", "Select"),
)
_WITH_FORMAT = (
    *("BiasAdd", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "FusedBatchNormV3"),
    *("Conv2DBackpropInput", "Conv3DBackpropInputV2"),  # transposed convolutions
    *("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"),
)
_CHANNELS_LAST = ("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic")
_WEIGHTS = ("ReadVariableOp", "Const", "VarHandleOp")
_MOST_OPERATIONS = 2_000


def neuron_axis(tensor: tf.Tensor) -> int | None:
    """Returns -1 or 1, the axis of the neurons of a tensor of the graph; None if there is no proof.

    The last axis of `(batch, neurons)` needs none, unless a product of two activations made the tensor.
    """
    axis = _Proof().axis(tensor, _MOST_OPERATIONS)
    rank = tensor.shape.rank
    if axis is None or rank is None:
        return None
    return -1 if axis == rank - 1 else 1 if axis == 1 else None


def with_proved_axis(relu: ReluLayer, output: tf.Tensor) -> ReluLayer | None:
    """Returns the layer with the axis that the operations before its output show, where its structure shows none.

    None if no axis is proved, although an operation or a layer of the model puts the channels elsewhere than last.
    """
    if relu.axis_from == "structure" or output.shape.rank in (None, 0, 1, 2):
        return relu
    shown = None if tf.executing_eagerly() else _Proof().axis(output, _MOST_OPERATIONS)
    if shown is None:
        return relu if relu.axis_from and (tf.executing_eagerly() or not _has_channels_first(output)) else None
    return replace(relu, axis=1 if shown == 1 else -1) if shown in (1, output.shape.rank - 1) else None


def _has_channels_first(tensor: tf.Tensor) -> bool:
    """Whether an operation that a tensor is computed from has the channels on axis 1."""
    seen, pending = set(), [tensor.op]
    while pending:
        op = pending.pop()
        if id(op) not in seen:
            seen.add(id(op))
            if op.type in _WITH_FORMAT and op.get_attr("data_format").startswith(b"NC"):
                return True
            pending += [each.op for each in op.inputs]
    return False


def depends_on_batch(tensor: tf.Tensor) -> bool:
    """Whether a tensor is computed from anything else than weights and constants."""
    seen, pending = set(), [tensor.op]
    while pending:
        op = pending.pop()
        if id(op) in seen or op.type in _WEIGHTS:
            continue
        seen.add(id(op))
        if not op.inputs and not (op.type == "Placeholder" and op.outputs[0].dtype in (tf.resource, tf.variant)):
            return True
        if op.op_def.is_stateful or "Random" in op.type:  # the batch's iterator, and random numbers
            return True
        pending += [each.op for each in op.inputs]
    return False


class _Proof:
    """One search for the axis of the neurons, backwards through the graph."""

    def __init__(self) -> None:
        self._known: dict[int, int | None] = {}

    def axis(self, tensor: tf.Tensor, left: int) -> int | None:
        """Returns the axis, counted from 0; `left` bounds the depth of the search."""
        if id(tensor) not in self._known:
            self._known[id(tensor)] = None
            found = self._find(tensor, left) if left and tensor.shape.rank else None
            self._known[id(tensor)] = found
        return self._known[id(tensor)]

    def _find(self, tensor: tf.Tensor, left: int) -> int | None:
        op, rank = tensor.op, tensor.shape.rank
        if op.type in _WITH_FORMAT:
            return 1 if op.get_attr("data_format").startswith(b"NC") else rank - 1
        if op.type in _CHANNELS_LAST or op.type in (
            "ResourceGather",
            "Einsum",
            "MatMul",
            "BatchMatMulV2",
            "BatchMatMulV3",
        ):
            return rank - 1 if op.type in _CHANNELS_LAST or _made_by_weights(op) else None
        if op.type in _ELEMENTWISE:
            return self._common(op.inputs, rank, left)
        if op.type == "ConcatV2":
            return self._common(op.inputs[:-1], rank, left)
        if op.type in _UNARY or op.type in _MOVING:
            return self._moved(op, tensor, left)
        return rank - 1 if rank == 2 else None

    def _common(self, tensors: Iterable[tf.Tensor], rank: int, left: int) -> int | None:
        """Returns the axis on which all tensors agree that show one; a weight `(neurons,)` shows the last."""
        found = set()
        for each in tensors:
            if each.shape.rank == rank and (axis := self.axis(each, left - 1)) is not None:
                found.add(axis)
            elif each.shape.rank == 1 and each.shape[0] != 1 and not depends_on_batch(each):
                found.add(rank - 1)
        if found:
            return found.pop() if len(found) == 1 else None
        return None

    def _moved(self, op: tf.Operation, tensor: tf.Tensor, left: int) -> int | None:  # noqa: PLR0911
        """Follows the axis through an operation that moves axes."""
        source = op.inputs[-1] if op.type == "Split" else op.inputs[0]
        axis, rank, before = self.axis(source, left - 1), tensor.shape.rank, source.shape.rank
        if axis is None or op.type in _UNARY:
            return axis
        if op.type == "Transpose":
            order = tf.get_static_value(op.inputs[1])
            return None if order is None else list(order).index(axis)
        size = source.shape[axis]
        if size == 1 or _touches(op, axis, before):
            return None
        if rank == before:
            return axis if tensor.shape[axis] == size or op.type in ("Split", "StridedSlice", "Slice") else None
        if rank == 2 and op.type == "Reshape" and tensor.shape[0] is None:
            return 1  # flattened: each place of a channel is a neuron
        if axis == before - 1:  # the last axis stays the last
            return rank - 1 if tensor.shape[-1] == size and size is not None else None
        return None


def _touches(op: tf.Operation, axis: int, rank: int) -> bool:
    """Whether an operation reduces, gathers or takes a single place of the axis."""
    if op.type in ("Sum", "Mean", "Max", "Min"):
        reduced = tf.get_static_value(op.inputs[1])
        return reduced is None or axis in [int(i) % rank for i in reduced.reshape(-1)]
    if op.type == "GatherV2":
        along = tf.get_static_value(op.inputs[2])
        return along is None or int(along) % rank == axis
    if op.type == "StridedSlice":
        if op.get_attr("new_axis_mask") or op.inputs[1].shape[0] is None:
            return True
        last, ellipsis = op.inputs[1].shape[0] - 1, op.get_attr("ellipsis_mask")
        reaches_last = last == rank - 1 if not ellipsis else ellipsis != 1 << last
        return axis != rank - 1 or bool(reaches_last and op.get_attr("shrink_axis_mask") >> last & 1)
    return False


def _made_by_weights(op: tf.Operation) -> bool:
    """Whether the last axis of a product is an axis of weights, and no other axis is, apart from those it shares with inputs."""
    if op.type == "ResourceGather":
        return True
    weights = [i for i, each in enumerate(op.inputs) if not depends_on_batch(each)]
    if op.type != "Einsum":
        return weights == [1]
    inputs, output = op.get_attr("equation").decode().replace(" ", "").split("->")
    parts = inputs.split(",")
    if len(parts) != 2 or len(weights) != 1:
        return False
    kernel, others = parts[weights[0]], parts[1 - weights[0]]
    own: list[Any] = [letter for letter in output if letter in kernel and letter not in others]
    return own == [output[-1]]
