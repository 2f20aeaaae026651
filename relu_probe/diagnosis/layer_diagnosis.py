"""The diagnosis of one ReLU layer: an immutable value with one entry per neuron."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from relu_probe.diagnosis.causes import Causes
from relu_probe.report.layer_report import Floats, LayerReport, Mask


@dataclass(frozen=True, eq=False, repr=False)
class LayerDiagnosis:
    """What `diagnose` found for one layer.

    Args:
        report: the counts of the layer.
        cause: `(neurons,)` of str, "" for a healthy neuron. Dead: "input", "zero weights", "bias", "weights". Blocked:
            "path", "loss", "saturated", "outgoing", "downstream", "disjoint". "unknown" if the structure of the model does not
            show the cause.
        margin: `(neurons,)`, the largest z over the data, that is the distance from firing; nan if z is not visible.
        certified: `(neurons,)` bool, no input within the bounds makes the neuron fire in inference mode; None without
            bounds.
        rate_limit: `(neurons,)`, the upper confidence limit of the rate at which the neuron fires on samples like these.
        joint_rate_limit: `(neurons,)`, limits that hold for all neurons of the layer at once.
        offset_description: what keeps z down if the cause is "bias": the bias, BatchNormalization's beta, a threshold.
        is_first_layer: no layer with weights stands between the model's inputs and this one.
        lowest_input: the smallest value among the inputs of the layer on the data.
        input_offset: the norm of the mean of the layer's inputs over the norm of their deviation, 0 for centred inputs; nan
            if z is not visible.
        input_size: the root mean square of the layer's inputs; nan if z is not visible.
        bounds_stopped_at: the layer through which the bounds could not be carried, "" if there is none.
        feeds: the names of the counted ReLU layers that receive the layer's output next.
        is_output: the layer's output is an output of the model.
        behind_batch_norm: a BatchNormalization belongs to the layer's z.
        initial_offset: where the initialiser of its bias or beta starts at most; None if it does not say.
        offset: `(neurons,)`, the bias now; None if it is unknown or not only a bias.
        regularizers: names the regularisers that act on the layer, "" if there are none.
        finite_inputs: no NaN and no infinity is known to be among the inputs of the layer.
        revivable: its weights and all that it leads to are visible, and it is no output: `revive` can bring it back.
        targets: the number of negative targets, and of all targets, of the output that the layer is; None otherwise.
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
    input_offset: float
    bounds_stopped_at: str
    input_size: float = float("nan")
    feeds: tuple[str, ...] = ()
    is_output: bool = False
    behind_batch_norm: bool = False
    initial_offset: float | None = None
    offset: Floats | None = None
    regularizers: str = ""
    finite_inputs: bool = True
    revivable: bool = False
    targets: tuple[int, int] | None = None

    def __repr__(self) -> str:
        counts = Counter(cause for cause in self.cause.tolist() if cause)
        causes = ", ".join(f"{cause} {count:,}" for cause, count in counts.most_common())
        return f"<LayerDiagnosis: {causes or 'no cause'}; {self.report!r}>"
