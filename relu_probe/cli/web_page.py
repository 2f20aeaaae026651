"""A web page of reports in one file: pictures and tables, without scripts, and without anything from elsewhere."""

from base64 import b64encode
from collections.abc import Iterator
from html import escape

from relu_probe.report.fit_reports import FitReports
from relu_probe.report.history import history
from relu_probe.report.history_table import change_cells, history_cells
from relu_probe.report.life_image import LEGEND, Image, draw_life
from relu_probe.report.markup import html_table
from relu_probe.report.report import Report
from relu_probe.report.summary import end_of_fit
from relu_probe.tensorboard.life_picture import framed_life
from relu_probe.tensorboard.overview import Overview
from relu_probe.tensorboard.png import encode_png
from relu_probe.utils.foreign_text import shown

# The page may load nothing and run nothing, whatever the names in the reports say.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.4 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
caption { font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .15rem .6rem; border-bottom: 1px solid #8886; vertical-align: bottom; }
th[colspan] { text-align: center !important; }
figure { margin: 1rem 0; }
figcaption { overflow-wrap: anywhere; }
img { max-width: 100%; border: 1px solid #8886; }
"""


def web_page(reports: list[Report]) -> str:
    """Returns an HTML page of the reports of one training, oldest first.

    >>> from relu_probe.report.layer_report import LayerReport
    >>> page = web_page([Report({"<hidden>": LayerReport(samples=8, positions=8, active=[0, 3, 8, 8])})])
    >>> "<h1>25 % of 4 ReLU neurons dead, worst &lt;hidden&gt; (25 %)</h1>" in page
    True
    """
    title = escape(headline(reports))
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{title}</title><style>{_STYLE}</style></head>",
            f"<body><h1>{title}</h1>",
            *_history(reports),
            html_table(reports[-1].cells()),
            *_life_images(reports),
            "</body></html>\n",
        ]
    )


def headline(reports: list[Report]) -> str:
    """Returns how many neurons are dead in the newest report, and the worst layer."""
    deaths = FitReports.from_reports(reports).deaths() if len(reports) > 1 else {}
    return end_of_fit(reports[-1].layers, reports[-1].unseen, deaths)


def _history(reports: list[Report]) -> Iterator[str]:
    if len(reports) > 1:
        yield from _overview(reports)
        found = history(reports)
        yield html_table(history_cells(found))
        yield f"<details><summary>All changes</summary>{html_table(change_cells(found))}</details>"


def _overview(reports: list[Report]) -> Iterator[str]:
    overview, so_far = Overview(), FitReports()
    for report, epoch in zip(reports, _epochs(reports)):
        so_far.add(report)
        overview.add(report, epoch, so_far.deaths())
    if (picture := overview.draw()) is not None:
        yield _figure(picture, "Dead neurons: a row for each layer, a column for each epoch")


def _life_images(reports: list[Report]) -> Iterator[str]:
    """Yields a picture for each layer, and before them what all of them show."""
    yield f"<h2>The life of each neuron</h2><p>{escape(LEGEND[0].upper() + LEGEND[1:])}</p>"
    for name in reports[-1]:
        found = [(report[name], epoch) for report, epoch in zip(reports, _epochs(reports)) if name in report]
        layers, epochs = zip(*found)
        if any(layer.measured for layer in layers):
            picture = framed_life(draw_life(layers), name, max(layer.neurons for layer in layers), epochs)
            yield _figure(picture, shown(name))


def _epochs(reports: list[Report]) -> list[int]:
    """Returns the epoch of each report, or its number if it has none."""
    return [number if report.epoch is None else report.epoch for number, report in enumerate(reports)]


def _figure(image: Image, caption: str) -> str:
    source = f"data:image/png;base64,{b64encode(encode_png(image)).decode()}"
    caption = escape(caption)
    return f'<figure><figcaption>{caption}</figcaption><img alt="{caption}" src="{source}"></figure>'
