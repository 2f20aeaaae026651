"""Figures show what the reports say."""

import re
import subprocess
import sys

import numpy as np
import pytest

from relu_probe import LayerReport, Report
from relu_probe.report.life_image import DEAD, draw_life

pytest.importorskip("matplotlib")
from matplotlib.image import AxesImage
from matplotlib.text import Text

from relu_probe.plots import plot_history, plot_report

N = 1000


def fit(names, epochs=6, neurons=40, seed=0):
    """Returns reports in which i neurons of layer i die in each epoch, and one neuron of each layer is blocked."""
    rng = np.random.default_rng(seed)
    return [
        Report({name: layer(rng, neurons, i * epoch) for i, name in enumerate(names)}, epoch, "train")
        for epoch in range(epochs)
    ]


def layer(rng, neurons, dead):
    active = rng.integers(1, N, neurons)
    active[:dead] = 0
    with_gradient = active.copy()
    with_gradient[-1] = 0
    return LayerReport(samples=N, positions=N, active=active, with_gradient=with_gradient)


def texts(figure):
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(Text)]


def images(figure):
    return [image.get_array() for image in figure.findobj(AxesImage)]


def test_a_report_is_drawn_as_a_strip_for_each_layer():
    report = fit(["one", "two"])[-1]
    figure = plot_report(report)
    for strip, name in zip(images(figure), report):
        np.testing.assert_array_equal(strip, draw_life([report[name]]))
        assert (strip == DEAD).all(axis=-1).mean() == report[name].dead_fraction
    assert figure.axes[0].get_yticklabels()[1].get_text() == "two"
    assert {"0 of 40 dead, 1 blocked", "5 of 40 dead, 1 blocked"} <= set(texts(figure))
    assert 'ReLU report (train, epoch 5): "dead" is never active on the N samples, N = 1,000' in texts(figure)


def test_a_history_draws_the_lines_and_the_image_of_every_layer():
    reports = fit(["one", "two", "three"])
    figure = plot_history(reports)
    dead, blocked = (axes for axes in figure.axes if axes.get_xlabel() == "epoch")
    for axes, scalar in ((dead, "dead_fraction"), (blocked, "blocked_fraction")):
        drawn = [line.get_ydata().tolist() for line in axes.lines]
        assert drawn[:-1] == [[getattr(r[name], scalar) for r in reports] for name in reports[0]]
        assert drawn[-1] == [getattr(r, scalar) for r in reports]
        assert scalar != "dead_fraction" or drawn[0] != drawn[1]  # so that swapped lines would be noticed
    for shown, name in zip(images(figure), reports[0]):
        np.testing.assert_array_equal(shown, draw_life([report[name] for report in reports]))
    assert {"one: 0 of 40 dead, 1 blocked", "three: 10 of 40 dead, 1 blocked"} <= set(texts(figure))


def test_of_many_layers_those_with_most_dead_neurons_have_colours_and_images():
    reports = fit([f"layer_{i}" for i in range(20)], epochs=2)
    figure = plot_history(reports)
    titles = [axes.get_title(loc="left") for axes in figure.axes if ":" in axes.get_title(loc="left")]
    assert [title.split(":")[0] for title in titles] == [f"layer_{i}" for i in range(12, 20)]
    assert len(figure.axes[0].lines) == 21
    assert sum(line.get_color() == "0.8" for line in figure.axes[0].lines) == 12
    assert "other layers" in texts(figure)


def test_any_name_is_shown_as_text():
    names = ["_hidden", "$a_b$", "a|b", "<img src=x>", "n" * 300]
    reports = fit(names)
    for figure in (plot_report(reports[-1]), plot_history(reports)):
        assert sum(text.startswith("nnn") and len(text) < 100 for text in texts(figure)) >= 1
        assert any("$a_b$" in text for text in texts(figure))
        assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text())
    legend = [text.get_text() for text in figure.subfigs[0].legends[0].get_texts()]
    assert legend[:4] == names[:4]


def test_without_gradients_and_with_a_layer_that_saw_nothing():
    seen, unseen = (LayerReport(samples=n, positions=n, active=[0, 0]) for n in (3, 0))
    reports = [Report({"a": seen, "b": unseen}, epoch) for epoch in range(3)]
    figure = plot_history(reports)
    assert [axes.get_title(loc="left") for axes in figure.axes][:2] == ["dead fraction", "a: 2 of 2 dead"]
    assert len(images(plot_report(reports[0]))) == 1


def test_reports_that_measured_nothing_are_refused():
    for plot, found in ((lambda: plot_report(Report()), "1 report"), (lambda: plot_history([]), "0 reports")):
        message = (
            f"found {found}, and no measured layer in them; expected at least one. "
            "Pass probe.reports after model.fit, or the report of measure(...)."
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            plot()


def test_a_notebook_shows_a_figure_once():
    """The figure has a `_repr_png_`. If pyplot managed it, the notebook would show it a second time."""
    import matplotlib.pyplot as plt

    assert plot_report(fit(["one"])[-1])._repr_png_().startswith(b"\x89PNG")
    assert plt.get_fignums() == []


@pytest.mark.once
def test_without_matplotlib_the_error_names_the_fix_and_all_else_works():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import relu_probe.report.life_image, relu_probe.tensorboard.summaries\n"
        "try: import relu_probe.plots\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "relu_probe.plots needs matplotlib. Install it: python -m pip install matplotlib\n"


def test_nan_neurons_are_mentioned():
    """They are drawn white, and do not count as dead."""
    layer = LayerReport(samples=4, positions=4, active=[0, 0, 4], nan=[True, True, False])
    report = Report({"hidden": layer}, epoch=0)
    assert "0 of 3 dead, 2 NaN" in texts(plot_report(report))
    assert "hidden: 0 of 3 dead, 2 NaN" in [axes.get_title(loc="left") for axes in plot_history([report]).axes]
