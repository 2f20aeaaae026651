"""The diagnosis of one ReLU layer: an immutable value with one entry per neuron."""

from __future__ import annotations

from dataclasses import dataclass

from relu_probe.diagnosis.causes import Causes
from relu_probe.report.layer_report import Floats, LayerReport, Mask


@dataclass(frozen=True, eq=False)
class LayerDiagnosis:
    """What `diagnose` found for one layer.

    Args:
        report: the counts of the layer.
        cause: `(neurons,)` of str, "" for a healthy neuron. Dead: "input", "bias", "weights". Blocked: "loss",
            "saturated", "outgoing", "downstream". "unknown" if the structure of the model does not show the cause.
        margin: `(neurons,)`, the largest z over the data, that is the distance from firing; nan if z is not visible.
        certified: `(neurons,)` bool, no input within the bounds makes the neuron fire in inference mode; None without
            bounds.
        rate_limit: `(neurons,)`, the upper confidence limit of the rate at which the neuron fires on samples like these.
        joint_rate_limit: `(neurons,)`, limits that hold for all neurons of the layer at once.
        offset_description: what keeps z down if the cause is "bias": the bias, BatchNormalization's beta, a threshold.
        is_first_layer: no layer with weights stands between the model's inputs and this one.
        lowest_input: the smallest value among the inputs of the layer on the data.
        bounds_stopped_at: the layer through which the bounds could not be carried, "" if there is none.
    """

    report: LayerReport
    cause: Causes
    margin: Floats
    certified: Mask | None
    rate_limit: Floats
    joint_rate_limit: Floats
    offset_description: str
    is_first_layer: bool
    lowest_input: float
    bounds_stopped_at: str
