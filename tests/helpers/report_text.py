"""The numbers in the texts of a report and a history, parsed back and compared with those of the report."""

import re
from html.parser import HTMLParser

from shown_numbers import agrees, all_agree, columns, disagreements, total
from tensorboard.plugin_util import markdown_to_safe_html

from relu_probe import history
from relu_probe.report.history_table import sparkline
from relu_probe.report.markup import markdown_table


class Rows(HTMLParser):
    """The words of each row of the tables of a page, without the first cell of the row, and all other text."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.rest, self.cell = [], "", None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = ""

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[-1].append(self.cell.split())
            self.cell = None

    def handle_data(self, data):
        if self.cell is None:
            self.rest += data
        else:
            self.cell += data

    def numbers(self):
        """The words behind the names of the layers and the total: the head has none."""
        return [[word for cell in row[1:] for word in cell] for row in self.rows[1:]]


def expected_rows(report):
    return [[value for part in row for value in part] for row in [*map(columns, report.layers.values()), total(report)]]


def wrong_rows(html, report):
    """The numbers of the rows in a table of the report that do not show its numbers."""
    rows, expected = Rows(html).numbers(), expected_rows(report)
    assert len(rows) == len(expected)
    return [i for i, (texts, values) in enumerate(zip(rows, expected)) if not all_agree(texts, values)]


def as_markdown(report):
    return markdown_to_safe_html(markdown_table(report.cells()))


def notes_of(report):
    """What the foot of a report says of numbers of neurons: note -> number."""
    nan = {
        f"NaN seen at {{}} of {name}": sum(map(bool, layer.nan))
        for name, layer in report.layers.items()
        if any(layer.nan)
    }
    return {f"{note.format(f'{count:,} neuron' + 's' * (count != 1))}" for note, count in nan.items()}


def assert_said(report):
    text, html = str(report), report._repr_html_()
    assert disagreements(report, text) == []
    assert wrong_rows(html, report) == wrong_rows(as_markdown(report), report) == []
    for shown in (text, Rows(html).rest, Rows(as_markdown(report)).rest):
        assert set(re.findall(r"NaN seen at [\d,]+ neurons? of [\w/]+", shown)) == notes_of(report)
    assert_summary_is_said(report)


def assert_summary_is_said(report):
    """`repr()`: "1 of 4 dead, worst hidden 25 %, 1 NaN, 1 ReLU not counted"."""
    measured = [layer for layer in report.layers.values() if layer.positions]
    dead = sum(layer.active[i] == 0 and not layer.nan[i] for layer in measured for i in range(layer.neurons))
    found = re.search(r": ([\d,]+) of ([\d,]+) dead", repr(report))
    neurons = sum(layer.neurons for layer in measured)
    assert ([int(n.replace(",", "")) for n in found.groups()] if found else [0, 0]) == [dead, neurons]
    if worst := re.search(r"worst ([\w/]+) ([<>]?[\d.]+) %", repr(report)):
        assert agrees(f"{worst[2]}{'' if '.' in worst[2] else '.0'}%", report[worst[1]].dead_fraction)
        assert report[worst[1]].dead_fraction == report.max_dead_fraction


def assert_history_is_said(several):
    found = history(several)
    lines = re.split(r"\n-+", str(found))[-1].splitlines()[1:]
    assert len(lines) == len(found)
    for line, (name, layer) in zip(map(str.split, lines), found.items()):
        newest = [report[name] for report in several if name in report and report[name].measured]
        dead = ["-"] if not newest else columns(newest[-1])[1]
        counts = [layer.born_dead.sum(), layer.never_active.sum(), layer.died.sum(), layer.revived.sum()]
        words = line[1 : 1 + len(dead) + 4]
        assert all_agree(words, [*dead, *map(int, counts)]), (line, dead, counts)
        assert sparkline(layer.dead_fraction).strip() in str(found)
