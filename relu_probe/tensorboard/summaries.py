"""How does TensorBoard show it? A report in, event files out."""

import shlex
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.histogram import metadata as histograms
from tensorboard.plugins.scalar import metadata as scalar
from tensorboard.util.tensor_util import make_tensor_proto

from relu_probe.report.layer_report import Floats
from relu_probe.report.life_image import LEGEND, life
from relu_probe.report.markup import markdown_table, plain_text
from relu_probe.report.report import Report
from relu_probe.tensorboard.event_file import EventFile

BUCKETS = 30  # the page rebins what it gets into 30 equal bins: so it keeps these as they are
_WIDTH = 1 / (BUCKETS - 1)
# The first bucket, [-1/29, 0], holds exactly the zeros; the other 29 cover (0, 1].
EDGES = np.linspace(-_WIDTH, 1.0, BUCKETS + 1)

_SCALARS = {
    "dead_fraction": "Share of the ReLU neurons that were never active on the samples seen. 0 is healthy.",
    "zero_gradient_fraction": "Share of the ReLU neurons through which no gradient flowed: dead, or active and blocked. "
    "0 is healthy.",
}
_CHANGES = {
    "died": "Neurons that were active in the report before and are dead in this one.",
    "revived": "Neurons that were dead in the report before and are active in this one.",
}
_HISTOGRAMS = {
    "activation_rate": "For each neuron, the share of positions at which it was active. The first bar holds exactly the "
    "neurons that never were.",
    "gradient_rate": "For each neuron, the share of positions at which dL/dz, the gradient of the loss with respect to "
    "the pre-activation, was not zero. The first bar holds exactly the neurons at which it always was.",
}
_CARD = "The newest report. Its numbers, over time, are the scalars of the same names."


class Summaries:
    """Event files of one probe, in `{log_dir}/{name}`: a run directory of its own (two writers in one lose data).

    Args:
        log_dir: TensorBoard's directory.
        name: of the run.
        images: the picture of each layer's life, whenever the number of reports has doubled, and at the end.
        text: the report as a table.
        keep: the pictures show the newest so many reports, None for all.
    """

    def __init__(
        self, log_dir: str, name: str, *, images: bool = True, text: bool = True, keep: int | None = None
    ) -> None:
        self.log_dir = log_dir
        self.directory = str(Path(log_dir) / name) if "://" not in log_dir else f"{log_dir.rstrip('/')}/{name}"
        self.images, self.text = images, text
        self._reports: deque[Report] = deque(maxlen=keep if images else 1)  # for the pictures
        self._written = self._pictured = 0  # reports: all, and when the newest pictures were made
        self._step = 0
        self._file = EventFile(self.directory)

    def open(self) -> None:
        """Makes the event file, so that what is wrong with the directory shows before the first step."""
        self._file.open()

    def write(self, report: Report, step: int) -> None:
        self._reports.append(report)
        self._written += 1
        self._step = step
        with self._file.recording(step):
            if self._written == 1:
                _layout(report)
            self._write(report)
            if self._written >= 2 * self._pictured:
                self._picture()

    def finish(self) -> None:
        """The last pictures, at the step of the newest report, and that the fit came to its end."""
        if self._written > self._pictured:
            with self._file.recording(self._step):
                self._picture()
        if self._written:
            self._file.end(self._step)

    def _picture(self) -> None:
        self._pictured = self._written
        for name in self._reports[-1] if self.images else ():
            layers = [report[name] for report in self._reports]
            if any(layer.measured for layer in layers):
                tf.summary.image(f"life/{name}", life(layers)[None], description=f"Layer {plain_text(name)}: {LEGEND}")

    def _write(self, report: Report) -> None:
        if self.text:
            legend = f"\n\nThe pictures, life/: {LEGEND}" if self.images else ""
            tf.summary.text("report", markdown_table(report.cells()) + legend, description=_CARD)
        about = {name: f"Layer {plain_text(name)}, {layer.neurons:,} neurons." for name, layer in report.layers.items()}
        # All in one event: TensorFlow's own function for a scalar takes a millisecond.
        values = [
            _scalar(tag, getattr(report, tag), f"{why} All {len(about)} layers pooled.")
            for tag, why in _SCALARS.items()
        ]
        for tag, why in (_SCALARS | _CHANGES).items():
            values += [_scalar(f"{tag}/{name}", getattr(report[name], tag), f"{why} {about[name]}") for name in report]
        for tag, why in _HISTOGRAMS.items():
            rates = [(name, getattr(report[name], tag)) for name in report if report[name].measured]
            values += [_histogram(f"{tag}/{name}", rate, f"{why} {about[name]}") for name, rate in rates]
        summary = Summary(value=[value for value in values if value is not None])
        tf.summary.experimental.write_raw_pb(summary.SerializeToString())

    def close(self) -> None:
        self._file.close()

    def how_to_open(self) -> str:
        link = "http://localhost:6006/?tagFilter=dead_fraction&smoothing=0#timeseries"
        return f"relu_probe: tensorboard --logdir {shlex.quote(self.log_dir)}\n  and open {link}"


def histogram(rates: Floats) -> Floats:
    """`(30, 3)` buckets (left, right, count) of rates `(neurons,)` in [0, 1]; the first holds exactly the zeros.

    >>> histogram(np.array([0.0, 0.0, 1e-9, 1.0]))[[0, 1, -1], 2]
    array([2., 1., 1.])
    """
    # Right-closed buckets, so that a rare firer is not counted with the zeros.
    index = np.clip(np.ceil(rates / _WIDTH).astype(int), 0, BUCKETS - 1)
    return np.stack([EDGES[:-1], EDGES[1:], np.bincount(index, minlength=BUCKETS)], axis=1)


def _layout(report: Report) -> None:
    """The Custom Scalars page: for each of the scalars one chart with the lines of all layers."""
    charts = [
        layout_pb2.Chart(title=f"{tag} of every layer", multiline={"tag": [f"^{tag}/.*"]})
        for tag in _SCALARS
        if not np.isnan(getattr(report, tag))
    ]
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title="relu_probe", chart=charts)])
    tf.summary.experimental.write_raw_pb(custom_scalar.pb(layout).SerializeToString())


def _scalar(tag: str, value: float | None, description: str) -> Any:
    """None where nothing was measured: no point in the chart."""
    if value is None or np.isnan(value):
        return None
    about = scalar.create_summary_metadata(display_name=None, description=description)
    return Summary.Value(tag=tag, tensor=make_tensor_proto(np.float32(value)), metadata=about)


def _histogram(tag: str, rates: Floats | None, description: str) -> Any:
    if rates is None:
        return None
    about = histograms.create_summary_metadata(display_name=None, description=description)
    return Summary.Value(tag=tag, tensor=make_tensor_proto(histogram(rates)), metadata=about)
