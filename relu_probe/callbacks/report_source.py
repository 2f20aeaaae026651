"""The two sources of a probe's reports: the training batches of a fit, and given data."""

from dataclasses import replace
from typing import Any, Literal, Protocol

from relu_probe.counting.counters import Counters
from relu_probe.measuring.data import BatchedData, read_batches
from relu_probe.measuring.inference import has_loss
from relu_probe.measuring.measure import measurer_of
from relu_probe.measuring.model_state import ModelState
from relu_probe.measuring.nothing_counted import check_any_relu, uncounted, warn_if_nothing_is_counted
from relu_probe.measuring.train_step import begin_counting, counters_of_current_fit, training_counters
from relu_probe.report.report import Report
from relu_probe.structure.layer_selection import LayerSelection
from relu_probe.structure.relu_layers import ReluLayer
from relu_probe.utils.distributed import has_several_workers
from relu_probe.utils.error_policy import ErrorPolicy, reason

_BATCH = 32
_MOST_VALUES = 2**22  # in the output of a layer on a batch


class ReportSource(Protocol):
    """What a probe asks for reports. It does not keep the model alive."""

    kind: Literal["train", "data"]

    def begin_fit(self, model: Any, steps: int) -> None:
        """Prepares for a fit. Raises ValueError if the model or the data is wrong.

        Args:
            model: the model.
            steps: the training steps of earlier fits to which this one is appended.
        """

    def has_gradients(self, model: Any) -> bool:
        """Whether its reports have gradients; known from `begin_fit` on."""

    def error_policy(self, model: Any, *, strict: bool) -> ErrorPolicy:
        """What an error of measuring does.

        A worker waits for all others in every collective, so a worker with an error goes on with the others, or ends.
        """

    def begin_epoch(self, model: Any, uncounted_steps: int | None) -> None:
        """Prepares for an epoch that is measured.

        Args:
            uncounted_steps: the training steps of this fit so far, if not all were counted; None if they were.
        """

    def add_late_layers(self, model: Any) -> bool:
        """Counts layers that the first step built from now on. Returns whether the step numbers must be set again."""

    def report(self, model: Any, steps: int) -> Report:
        """The report of an epoch with `steps` training steps."""

    def relus(self, model: Any) -> list[ReluLayer]:
        """All that the newest report may count, ReLUs written as functions among them."""


def report_source(data: Any, *, activation_sum: bool) -> ReportSource:
    """The source for the callback's arguments: `data`, or the training batches if it is None."""
    return TrainingBatches(activation_sum=activation_sum) if data is None else GivenData(data)


def selected_report(source: ReportSource, selection: LayerSelection, model: Any, steps: int, *, strict: bool) -> Report:
    """The report of an epoch with `steps` training steps on the selected layers; updates the selection.

    Raises:
        ValueError: with `strict`, a layer that was selected by name, or every layer, could not be counted.
    """
    report = source.report(model, steps)
    selection.find_late_layers(model, counted=source.kind == "train")
    keys = [] if selection.is_everything else selection.select(source.relus(model), model)
    report = replace(report.select(keys) if keys else report, source=source.kind)
    if strict and (why := uncounted(report, keys)):
        raise ValueError(f"{why}.")
    selection.warned = selection.warned or warn_if_nothing_is_counted(report)
    return report


class TrainingBatches:
    """Reports on the training batches of each epoch, as trained.

    Args:
        activation_sum: whether reports have the sums of the activations.
    """

    kind: Literal["train", "data"] = "train"

    def __init__(self, *, activation_sum: bool) -> None:
        self.activation_sum = activation_sum

    def begin_fit(self, model: Any, steps: int) -> None:
        """Resets the training counters."""
        begin_counting(model, activation_sum=self.activation_sum, steps=steps)

    def has_gradients(self, model: Any) -> bool:
        """True: every training step has a backward pass."""
        return True

    def error_policy(self, model: Any, *, strict: bool) -> ErrorPolicy:
        """Several workers count and read on after an error: step by step the same collectives."""
        return ErrorPolicy(strict, keep_running=["measuring"] if _is_distributed(model) else [])

    def begin_epoch(self, model: Any, uncounted_steps: int | None) -> None:
        """Resets the counts of the epoch."""
        self.counters(model).reset(uncounted_steps)

    def add_late_layers(self, model: Any) -> bool:
        """Makes new counters. Returns False if another probe of the fit has made them already."""
        before = ModelState.of(model).training_counters
        return training_counters(model, activation_sum=self.activation_sum) is not before

    def report(self, model: Any, steps: int) -> Report:
        """Reads the counters: a collective, and so before anything that may fail."""
        counters = self.counters(model)
        report = counters.report(self.kind, activation_sum=self.activation_sum, gradients=True)
        counters.check(steps)
        check_any_relu(report, model)
        return report

    def relus(self, model: Any) -> list[ReluLayer]:
        """Those of the training counters."""
        return self.counters(model).all_relus()

    def counters(self, model: Any) -> Counters:
        """The training counters. Raises RuntimeError if they count another fit."""
        return counters_of_current_fit(model)


class GivenData:
    """Reports on given data, measured at the end of each epoch with frozen weights.

    Args:
        data: what `measure` takes.
    """

    kind: Literal["train", "data"] = "data"

    def __init__(self, data: Any) -> None:
        self._data = data
        self._batches: BatchedData

    def begin_fit(self, model: Any, steps: int) -> None:
        """Reads the data's shapes, and checks that they fit the model if it is built."""
        batch_size = _batch_size(model)
        try:
            self._batches = read_batches(self._data, batch_size)
        except ValueError:
            raise
        except Exception as error:  # of the data's own code
            raise ValueError(f"data= cannot be read: {reason(error)}") from error
        if model.built:
            measurer_of(model).check(self._batches)

    def has_gradients(self, model: Any) -> bool:
        """Whether the data has labels and the model a loss."""
        return self._batches.labelled and has_loss(model)

    def error_policy(self, model: Any, *, strict: bool) -> ErrorPolicy:
        """Several workers raise the error, and TensorFlow ends them all: a pass over data cannot be resumed."""
        return ErrorPolicy(strict, always_raise=["measuring"] if _is_distributed(model) else [])

    def begin_epoch(self, model: Any, uncounted_steps: int | None) -> None:
        """Nothing: the data is measured at the end of the epoch."""

    def add_late_layers(self, model: Any) -> bool:
        """False: a measurement finds the model's layers by itself."""
        return False

    def report(self, model: Any, steps: int) -> Report:
        """Measures the data in one pass."""
        return measurer_of(model).run(self._batches)

    def relus(self, model: Any) -> list[ReluLayer]:
        """Those of the model's measurer."""
        return measurer_of(model).counters.all_relus()


def _batch_size(model: Any) -> int:
    """The samples in each step, for arrays: 32, or fewer for very wide layers, whose outputs would fill the memory."""
    relus = measurer_of(model).counters.relus.values() if model.built else ()
    widest = max((relu.width() for relu in relus), default=0)
    return min(_BATCH, max(1, _MOST_VALUES // max(widest, 1)))


def _is_distributed(model: Any) -> bool:
    return has_several_workers(model.distribute_strategy)
