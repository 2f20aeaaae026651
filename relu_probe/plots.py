"""Figures of reports, drawn with matplotlib (the extra `plot`)."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

try:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
except ImportError as error:
    raise ImportError("relu_probe.plots needs matplotlib. Install it: python -m pip install matplotlib") from error

from relu_probe.report.history import list_of_reports
from relu_probe.report.layer_report import LayerReport
from relu_probe.report.life_image import DEAD, colours, draw_life
from relu_probe.report.report import Report
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.wording import number

_MAX_COLOURED = 8  # layers that get a colour and an image
# Okabe and Ito's colours, which differ with every kind of colour vision (Wong 2011, Nature Methods 8, 441).
_LINES = ["#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "#000000"]
_OTHERS = "0.8"
_POOLED: dict[str, Any] = {"color": "0.4", "linestyle": "--"}
_SCALARS = {"dead_fraction": "dead fraction", "blocked_fraction": "blocked fraction"}


class Plot(Figure):
    """A figure that pyplot does not manage: a notebook shows it once, as the value of a cell."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=100)
        return png.getvalue()


def plot_report(report: Report) -> Figure:
    """Draws a strip for each layer: its neurons, from the dead to the most active, coloured by activation rate.

    Raises:
        ValueError: the report measured nothing.
        TypeError: `report` is no report.

    >>> figure = plot_report(Report({"hidden": LayerReport(samples=9, positions=9, active=[0, 4, 9])}, epoch=0))
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1 of 3 dead']
    """
    if not isinstance(report, Report):
        raise TypeError(f"found a {type(report).__name__}; expected one report. Pass probe.report, or measure(...).")
    names = _measured([report])
    figure = Plot(figsize=(9, 1.8 + 0.4 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for y, name in enumerate(names):
        axes.imshow(draw_life([report[name]]), extent=(0, 1, y + 0.4, y - 0.4), aspect="auto", interpolation="nearest")
        axes.text(1.01, y, _summary(report[name]), va="center")
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5), xlabel="share of the layer's neurons")
    axes.set_yticks(range(len(names)), [shown(name, 60) for name in names], parse_math=False)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{report.cells().title}, N = {report.samples:,}", loc="left", fontsize="medium")
    _add_colour_bar(figure, [axes])
    return figure


def plot_history(reports: Sequence[Report]) -> Figure:
    """Draws the dead and blocked fractions of every layer over the epochs, and below an image of each layer's history.

    If there are more than 8 layers, the 8 with the most dead neurons get colours and images, and the others grey lines.

    Args:
        reports: the reports of one fit, oldest first, such as `probe.reports`.

    Raises:
        ValueError: there is no report, or none measured anything.
        TypeError: `reports` is no list of reports.

    >>> counts = [[0, 4, 9], [0, 0, 9]]
    >>> reports = [Report({"hidden": LayerReport(samples=9, positions=9, active=a)}, e) for e, a in enumerate(counts)]
    >>> [axes.get_title(loc="left") for axes in plot_history(reports).axes if axes.get_title(loc="left")]
    ['dead fraction', 'hidden: 2 of 3 dead']
    """
    reports = list_of_reports(reports)
    names = _measured(reports)
    coloured = _sickest(reports, names)
    rows = -(-len(coloured) // 2)
    figure = Plot(figsize=(10, 3 + 2.2 * rows), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[3, 2.2 * rows])
    top, bottom = halves
    scalars = [scalar for scalar in _SCALARS if not np.isnan(_series(reports, scalar)).all()]
    for axes, scalar in zip(top.subplots(1, len(scalars), squeeze=False, sharey=True)[0], scalars):
        _draw_lines(axes, reports, names, coloured, scalar)
    _add_legend(top, coloured, others=len(names) > len(coloured))
    panels = list(bottom.subplots(rows, min(2, len(coloured)), squeeze=False).flat)
    for axes, name in zip(panels, coloured):
        _draw_image(axes, reports, name)
    for axes in panels[len(coloured) :]:
        axes.set_axis_off()
    _add_colour_bar(bottom, panels)
    return figure


def _measured(reports: Sequence[Report]) -> list[str]:
    names = dict.fromkeys(name for report in reports for name in report if report[name].measured)
    if not names:
        raise ValueError(
            f"found {number(len(reports), 'report')}, and no measured layer in them; expected at least one. "
            "Pass probe.reports after model.fit, or the report of measure(...)."
        )
    return list(names)


def _sickest(reports: list[Report], names: list[str]) -> list[str]:
    """Returns at most `_MAX_COLOURED` of the names, of the layers with the most dead or NaN neurons, in the model's order."""

    def worst(name: str) -> float:
        return max(float(np.mean(layer.dead | layer.nan)) for layer in _layers(reports, name) if layer.measured)

    most = sorted(names, key=worst, reverse=True)[:_MAX_COLOURED]
    return [name for name in names if name in most]


def _layers(reports: list[Report], name: str) -> list[LayerReport]:
    return [report[name] for report in reports if name in report.layers]


def _series(reports: list[Report], scalar: str, name: str | None = None) -> Any:
    """Returns the `(reports,)` values of one layer, or of the whole model; NaN if a report has none."""
    parts = [report if name is None else report.layers.get(name) for report in reports]
    return np.array([np.nan if part is None else getattr(part, scalar) for part in parts])


def _epochs(reports: list[Report]) -> list[int]:
    return [i if report.epoch is None else report.epoch for i, report in enumerate(reports)]


def _draw_lines(axes: Any, reports: list[Report], names: list[str], coloured: list[str], scalar: str) -> None:
    epochs, colour = _epochs(reports), dict(zip(coloured, _LINES))
    for name in sorted(names, key=colour.__contains__):  # the grey lines first, below the others
        axes.plot(epochs, _series(reports, scalar, name), color=colour.get(name, _OTHERS), marker=".")
    axes.plot(epochs, _series(reports, scalar), **_POOLED)
    axes.set(xlim=(min(epochs) - 0.5, max(epochs) + 0.5), ylim=(-0.02, 1.02), xlabel="epoch")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_title(_SCALARS[scalar], loc="left")
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)


def _add_legend(figure: Any, coloured: list[str], others: bool) -> None:
    """Adds the legend. Names are set afterwards: matplotlib drops labels with a leading underscore, and reads $ as TeX."""
    lines = [Line2D([], [], color=colour, marker=".") for colour in _LINES[: len(coloured)]]
    lines += [Line2D([], [], color=_OTHERS, marker=".")] if others else []
    names = [*coloured, "other layers"][: len(lines)] + ["all, pooled"]
    lines.append(Line2D([], [], **_POOLED))
    legend = figure.legend(lines, ["name"] * len(lines), loc="outside right upper", frameon=False)
    for text, name in zip(legend.get_texts(), names):
        text.set_parse_math(False)
        text.set_text(shown(name, 60))


def _draw_image(axes: Any, reports: list[Report], name: str) -> None:
    layers, epochs = _layers(reports, name), _epochs([report for report in reports if name in report.layers])
    neurons = max(layer.neurons for layer in layers)
    axes.imshow(draw_life(layers), extent=(0, neurons, len(layers), 0), aspect="auto", interpolation="nearest")
    ticks = np.unique(np.linspace(0, len(layers) - 1, 6).astype(int))
    axes.set_yticks(ticks + 0.5, [str(epochs[i]) for i in ticks])
    axes.set(xlabel="neurons", ylabel="epoch")
    newest = [layer for layer in layers if layer.measured][-1]
    axes.set_title(f"{shown(name, 60)}: {_summary(newest)}", loc="left", fontsize="medium", parse_math=False)


def _summary(layer: LayerReport) -> str:
    blocked = 0 if layer.blocked is None else np.count_nonzero(layer.blocked)
    others = {"blocked": blocked, "NaN": np.count_nonzero(layer.nan)}  # the image shows neither
    parts = [f"{np.count_nonzero(layer.dead):,} of {layer.neurons:,} dead"]
    return ", ".join(parts + [f"{count:,} {kind}" for kind, count in others.items() if count])


def _add_colour_bar(figure: Any, axes: list[Any]) -> None:
    """Adds the legend of the colours; the box at the left of the bar is "dead"."""
    red, green, blue = (channel / 255 for channel in DEAD)
    colormap = ListedColormap(colours(np.linspace(0, 1, 256)) / 255).with_extremes(under=(red, green, blue))
    bar = figure.colorbar(
        ScalarMappable(cmap=colormap), ax=axes, location="bottom", shrink=0.5, aspect=40, extend="min", extendrect=True
    )
    bar.set_label("activation rate")
    bar.outline.set_visible(False)
    bar.ax.text(-0.06, 0.5, "dead", transform=bar.ax.transAxes, ha="right", va="center")
