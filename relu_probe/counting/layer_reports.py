"""The `LayerReport` of a layer, made from the counts that were read from its variables."""

from collections.abc import Callable
from functools import reduce

import numpy as np

from relu_probe.counting.counter_block import LayerCounts
from relu_probe.counting.kernels import EXACT
from relu_probe.report.layer_report import LayerReport
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.structure.weights import nan_weights


def layer_report(
    relu: ReluLayer, parts: list[LayerCounts], *, gradients: bool, is_frozen: Callable[[ReluLayer], bool], dated: bool
) -> LayerReport:
    """Returns the report of a layer.

    Args:
        relu: the layer.
        parts: its counts in each block of variables, at least one.
        gradients: whether the steps computed gradients of a loss.
        is_frozen: whether the steps compute no gradient for a layer that no backward pass has reached.
        dated: whether the step of the last activity is kept.

    Raises:
        ValueError: the layer was called on too many samples in one step.
    """
    total = reduce(LayerCounts.plus, parts)
    if not total.positions:
        zeros = np.zeros(len(total.active), np.int64)
        return LayerReport(0, 0, zeros, zeros)
    if total.inexact:
        raise ValueError(
            f"layer {relu.key!r} was called on more than {EXACT:,} samples in one step, too many to be counted exactly; "
            "expected smaller batches, or a batch size that the model knows (keras.Input(batch_size=...))."
        )
    reached = total.backward > 0
    frozen = gradients and not reached and is_frozen(relu)
    return LayerReport(
        samples=min(total.samples, total.positions),  # of a sample without places, no position is counted
        positions=total.positions,
        active=total.active,
        with_gradient=total.with_gradient if reached or (gradients and not frozen) else None,
        nan=(total.nan > 0) | nan_weights(relu.layer, len(total.nan)),
        activation_sum=total.activation_sum if len(total.activation_sum) else None,
        last_active=total.last_active if dated else None,
        frozen=frozen,
    )
