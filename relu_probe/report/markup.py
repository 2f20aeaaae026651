"""How does a page show a report? As Markdown in TensorBoard, as HTML in a notebook; what a user named shows as text."""

import re
from html import escape

from relu_probe.report.report import Report
from relu_probe.report.table import report_cells

_LONGEST = 60  # characters of a name


def report_markdown(report: Report) -> str:
    """The report as a Markdown table.

    >>> from relu_probe import LayerReport
    >>> print(report_markdown(Report({"a|b": LayerReport(samples=2, positions=2, active=[0, 1])})).splitlines()[4])
    | a&#124;b | 2 | 1 50.0% | - | 0.000 0.250 0.500 | 2 | 2 |
    """
    cells = report_cells(report)
    rules = [":--"] + ["--:"] * (len(cells.headers) - 1)
    total = [f"**{text}**" if text else "" for text in map(plain_text, cells.total)]
    rows = [[plain_text(shortened(text)) for text in row] for row in (cells.headers, *cells.rows)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rules, *rows[1:], total))
    return "\n\n".join([f"**{plain_text(cells.title)}**", table, *map(plain_text, cells.notes)])


def plain_text(text: str) -> str:
    """Markdown that shows as `text`: every sign that means something to Markdown or HTML becomes a character reference.

    >>> plain_text("<b>_2")
    '&#60;b&#62;&#95;2'
    """
    return re.sub(r"[^\w ,.%-]|_", lambda sign: f"&#{ord(sign[0])};", " ".join(text.split()))


def shortened(text: str) -> str:
    """A name of hundreds of characters would squeeze the numbers beside it, a letter to a line."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 21]}...{text[-18:]}"


def report_html(report: Report) -> str:
    """The report as an HTML table.

    >>> report_html(Report()).startswith("<table><caption")
    True
    """
    cells = report_cells(report)
    head = _row("th", cells.headers)
    body = "".join(_row("td", row) for row in cells.rows)
    notes = "".join(f"<p>{escape(note)}</p>" for note in cells.notes)
    return (
        f'<table><caption style="text-align: left">{escape(cells.title)}</caption><thead>{head}</thead>'
        f"<tbody>{body}</tbody><tfoot>{_row('th', cells.total)}</tfoot></table>{notes}"
    )


def _row(tag: str, texts: list[str]) -> str:
    styles = ["text-align: left; word-break: break-all"] + ["text-align: right"] * (len(texts) - 1)
    inner = (f'<{tag} style="{s}">{escape(t).replace(chr(10), "<br>")}</{tag}>' for s, t in zip(styles, texts))
    return f"<tr>{''.join(inner)}</tr>"
