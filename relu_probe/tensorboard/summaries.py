"""TensorBoard summaries of reports: scalars, histograms, images, a table and a page of charts."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar

from relu_probe.report.deaths import Deaths
from relu_probe.report.layer_report import LayerReport
from relu_probe.report.life_image import LEGEND
from relu_probe.report.markup import markdown_table, plain_text
from relu_probe.report.report import Report
from relu_probe.report.summary import death_clauses
from relu_probe.tensorboard.event_file import EventFile
from relu_probe.tensorboard.life_images import MOST, LifeImages
from relu_probe.tensorboard.overview import Overview
from relu_probe.tensorboard.overview_picture import LEGEND as OVERVIEW_LEGEND
from relu_probe.tensorboard.summary_values import histogram_value, image_value, scalar_value
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.wording import number

_SCALARS = {
    "dead_fraction": "Fraction of the ReLU neurons that were never active on the samples seen. 0 is healthy.",
    "blocked_fraction": "Fraction of the ReLU neurons that were active, but through which no gradient flowed. 0 is healthy.",
    "zero_gradient_fraction": "Fraction of the ReLU neurons through which no gradient flowed: dead, or active but blocked. "
    "0 is healthy.",
}
_NAN = "Fraction of the ReLU neurons at which a NaN was seen. The other fractions leave them out."
_CHANGES = {
    "died": "Number of neurons that were active in the previous report and are dead in this one.",
    "revived": "Number of neurons that were dead in the previous report and are active in this one.",
}
_REVIVED = "Number of dead neurons of the layer that the callback Revive brought back at the end of this epoch."
_HISTOGRAMS = {
    "activation_rate": "For each neuron, the fraction of positions at which it was active. The first bar holds exactly the "
    "neurons that were never active.",
    "gradient_rate": "For each neuron, the fraction of positions at which dL/dz, the gradient of the loss with respect to "
    "the pre-activation, was not zero. The first bar holds exactly the neurons whose gradient was always zero.",
}
OVERVIEW_TAG = "a_overview/dead"  # sorts before all others: the page shows it first
_TABLE = "The report of this epoch. The scalars of the same names show its numbers over time."


class Summaries:
    """The summaries of one probe, written to the run directory `{log_dir}/{name}`.

    No other writer may use that directory: two writers in one run directory lose data (tensorboard#1011, #1063).

    Args:
        log_dir: TensorBoard's directory.
        name: the name of the run.
        images: whether to write an overview, and an image of each layer's history: each time the number of reports has doubled,
            and at the end. If there are more than 100 layers, images are written of the 100 with the largest shares of dead
            neurons, and of those that had one before, from the fourth report on, or at the end.
        text: whether to write each report as a table.
        keep: the number of newest reports that the images show; None for all.
    """

    def __init__(
        self, log_dir: str, name: str, *, images: bool = True, text: bool = True, keep: int | None = None
    ) -> None:
        self.log_dir = log_dir
        self.directory = str(Path(log_dir) / name) if "://" not in log_dir else f"{log_dir.rstrip('/')}/{name}"
        self.images, self.text = images, text
        self._overview = Overview(keep)
        self._lives = LifeImages(keep if images else 1)
        self._written = 0  # the number of reports written
        self._drawn = 0  # the number of reports when the newest overview was drawn
        self._step = 0
        self._file = EventFile(self.directory)

    def open(self) -> None:
        """Makes the event file, so that errors of the directory show before the first step.

        Raises:
            tf.errors.OpError: the file cannot be written.
        """
        self._file.open()

    def write(self, report: Report, step: int, deaths: Mapping[str, Deaths] | None = None) -> None:
        """Writes the summaries of a report.

        Args:
            report: the report.
            step: its epoch.
            deaths: layer name -> the deaths that the report shows; None if nobody follows the reports.

        Raises:
            tf.errors.OpError: the file cannot be written.
        """
        self._overview.add(report, step, deaths or {})
        self._lives.add(report, step)
        self._written += 1
        self._step = step
        with self._file.recording(step):
            if self._written == 1:
                _write_layout(report)
            self._write_report(report, deaths or {})
            if self._written >= 2 * self._drawn:
                self._write_images()

    def write_revived(self, counts: Mapping[str, int], step: int) -> None:
        """Writes the number of neurons that were revived in each layer.

        Raises:
            tf.errors.OpError: the file cannot be written.
        """
        values = [scalar_value(f"revived_by_us/{name}", count, _REVIVED) for name, count in counts.items()]
        with self._file.recording(step):
            tf.summary.experimental.write_raw_pb(Summary(value=values).SerializeToString())

    def finish(self, *, last: bool = True) -> None:
        """Writes the images, at the step of the newest report, and the end of the fit.

        Args:
            last: whether nothing will follow. Else images are written only if the reports have become a tenth more: there may
                be thousands of fits.
        """
        if self.images and self._written > self._lives.drawn * (1.0 if last else 1.1):
            with self._file.recording(self._step):
                self._write_images(last=True)
        if self._written:
            self._file.end(self._step)

    def _write_images(self, *, last: bool = False) -> None:
        if not self.images:
            return
        if self._written > self._drawn and (overview := self._overview.draw()) is not None:
            _write([image_value(OVERVIEW_TAG, overview, f"The dead neurons of every layer: {OVERVIEW_LEGEND}")])
        self._drawn = self._written
        for values in self._lives.draw(last=last):
            _write(values)

    def _write_report(self, report: Report, deaths: Mapping[str, Deaths]) -> None:
        if self.text:
            clauses = plain_text("; ".join(death_clauses(report.layers, deaths)))
            of = ", of the layers with the largest shares of dead neurons" if len(report) > MOST else ""
            legend = f"\n\nThe images, life/{of}: {LEGEND}" if self.images else ""
            text = f"**{clauses}**\n\n{markdown_table(report.cells())}{legend}"
            tf.summary.text("report", text, description=_TABLE)
        values = list(_scalars(report, "", f"All {number(len(report.layers), 'layer')} pooled."))
        for name, layer in report.layers.items():
            about = f"Layer {plain_text(shown(name))}, {number(layer.neurons, 'neuron')}."
            values += _scalars(layer, f"/{name}", about)
            values += [*_changes(layer, name, about), *_histograms(layer, name, about)]
        _write(values)

    def close(self) -> None:
        """Closes the event file; errors are ignored."""
        self._file.close()


def how_to_open(log_dir: str) -> str:
    """Returns the command that starts TensorBoard, and a link to the overview and the charts."""
    link = "http://localhost:6006/?tagFilter=dead&smoothing=0#timeseries"
    return f"relu_probe: tensorboard --logdir {shlex.quote(log_dir)}\n  and open {link}"


def _write(values: list[Any]) -> None:
    tf.summary.experimental.write_raw_pb(Summary(value=values).SerializeToString())


def _write_layout(report: Report) -> None:
    """Writes the page "Custom Scalars": for each scalar, one chart with a line for each layer."""
    charts = [
        layout_pb2.Chart(title=f"{tag} of every layer", multiline={"tag": [f"^{tag}/.*"]})
        for tag in ("dead_fraction", "blocked_fraction")  # the zero gradients would repeat the dead
        if not np.isnan(getattr(report, tag))
    ]
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title="relu_probe", chart=charts)])
    tf.summary.experimental.write_raw_pb(custom_scalar.pb(layout).SerializeToString())


def _scalars(part: Report | LayerReport, suffix: str, about: str) -> Iterator[Any]:
    """Yields the scalars of the model or of one layer.

    What was not measured gets no point. A fraction without neurons that can be judged gets the point NaN, at which the
    page interrupts the line: without a point, the line would go on as if nothing had happened.
    """
    nan_seen = part.nan_fraction > 0
    for tag, text in _SCALARS.items():
        value = getattr(part, tag)
        if not np.isnan(value) or (nan_seen and (part.has_gradients or tag == "dead_fraction")):
            yield scalar_value(f"{tag}{suffix}", value, f"{text} {about}")
    if nan_seen:
        yield scalar_value(f"nan_fraction{suffix}", part.nan_fraction, f"{_NAN} {about}")


def _changes(layer: LayerReport, name: str, about: str) -> Iterator[Any]:
    for tag, text in _CHANGES.items():
        if (value := getattr(layer, tag)) is not None:
            yield scalar_value(f"{tag}/{name}", value, f"{text} {about}")


def _histograms(layer: LayerReport, name: str, about: str) -> Iterator[Any]:
    """Yields the histograms of the rates of the neurons that can be judged: the rate 0 of a NaN would show as dead."""
    judged = layer.judged
    for tag, text in _HISTOGRAMS.items() if layer.shares["dead"].of else ():
        if (rates := getattr(layer, tag)) is not None:
            yield histogram_value(f"{tag}/{name}", rates[judged], f"{text} {about}")
