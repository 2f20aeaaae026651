"""How does TensorBoard show it? A report in, event files out."""

import shlex
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.plugins.histogram import metadata

from relu_probe.event_file import EventFile
from relu_probe.report import Floats, Report

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


class Summaries:
    """Event files of one probe, in `{log_dir}/{name}`: a run directory of its own (two writers in one lose data)."""

    def __init__(self, log_dir: str, name: str) -> None:
        self.log_dir = log_dir
        self.directory = str(Path(log_dir) / name) if "://" not in log_dir else f"{log_dir.rstrip('/')}/{name}"
        self._file = EventFile(self.directory)

    def open(self) -> None:
        """Makes the event file, so that what is wrong with the directory shows before the first step."""
        self._file.open()

    def write(self, report: Report, step: int) -> None:
        with self._file.recording(step):
            self._write(report)

    def _write(self, report: Report) -> None:
        for tag, description in _SCALARS.items():
            _scalar(tag, getattr(report, tag), f"{description} All {len(report.layers)} layers pooled.")
            for name, layer in report.layers.items():
                _scalar(f"{tag}/{name}", getattr(layer, tag), f"{description} Layer {name}, {layer.neurons:,} neurons.")
        for tag, description in _CHANGES.items():
            for name, layer in report.layers.items():
                if (count := getattr(layer, tag)) is not None:
                    _scalar(f"{tag}/{name}", count, f"{description} Layer {name}, {layer.neurons:,} neurons.")
        for tag, description in _HISTOGRAMS.items():
            for name, layer in report.layers.items():
                if layer.measured and (rates := getattr(layer, tag)) is not None:
                    _histogram(f"{tag}/{name}", rates, f"{description} Layer {name}.")

    def close(self) -> None:
        self._file.close()

    def how_to_open(self) -> str:
        link = "http://localhost:6006/?tagFilter=dead_fraction&smoothing=0#timeseries"
        return f"relu_probe: tensorboard --logdir {shlex.quote(self.log_dir)}  then open {link}"


def histogram(rates: Floats) -> Floats:
    """`(30, 3)` buckets (left, right, count) of rates `(neurons,)` in [0, 1]; the first holds exactly the zeros.

    >>> histogram(np.array([0.0, 0.0, 1e-9, 1.0]))[[0, 1, -1], 2]
    array([2., 1., 1.])
    """
    # Right-closed buckets, so that a rare firer is not counted with the zeros.
    index = np.clip(np.ceil(rates / _WIDTH).astype(int), 0, BUCKETS - 1)
    return np.stack([EDGES[:-1], EDGES[1:], np.bincount(index, minlength=BUCKETS)], axis=1)


def _scalar(tag: str, value: float, description: str) -> None:
    if not np.isnan(value):  # not measured: no point in the chart
        tf.summary.scalar(tag, value, description=description)


def _histogram(tag: str, rates: Floats, description: str) -> None:
    plugin = metadata.create_summary_metadata(display_name=None, description=description)
    tf.summary.write(tag, tf.constant(histogram(rates), tf.float64), metadata=plugin)
