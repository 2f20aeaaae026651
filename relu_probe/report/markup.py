"""Markdown and HTML of a report's table, with names escaped so that they show as text."""

import re
from collections.abc import Sequence
from html import escape

from relu_probe.report.table import ReportCells
from relu_probe.utils.foreign_text import shown

_MAX_NAME = 60  # characters


def markdown_table(cells: ReportCells) -> str:
    """Returns the title, the table and the notes as Markdown, for TensorBoard's text plugin.

    >>> cells = ReportCells("title", ["layer", "neurons"], rows=[["a|b", "2"]], total=["total", "2"], notes=[])
    >>> print(markdown_table(cells).splitlines()[4])
    | a&#124;b | 2 |
    """
    rules = [":--"] + ["--:"] * (len(cells.headers) - 1)
    total = [f"**{text}**" if text else "" for text in map(plain_text, cells.total)]
    rows = [[plain_text(text) for text in row] for row in (cells.headers, *map(_with_short_name, cells.rows))]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rules, *rows[1:], total))
    return "\n\n".join([f"**{plain_text(cells.title)}**", table, *map(plain_text, cells.notes)])


def plain_text(text: str) -> str:
    """Returns Markdown that shows as `text`, on one line.

    Every character with a meaning in Markdown or HTML becomes a character reference.

    >>> plain_text("<b>_2")
    '&#60;b&#62;&#95;2'
    """
    return re.sub(r"[^\w ,.%-]|_", lambda character: f"&#{ord(character[0])};", " ".join(text.split()))


def html_table(cells: ReportCells) -> str:
    """Returns the title, the table and the notes as HTML, for notebooks.

    >>> html_table(ReportCells("title", ["layer"], rows=[], total=["total"], notes=[])).startswith("<table><caption")
    True
    """
    head = _row("th", cells.headers)
    body = "".join(_row("td", row) for row in cells.rows)
    total = f"<tfoot>{_row('th', cells.total)}</tfoot>" if cells.total else ""
    notes = "".join(f"<p>{escape(note)}</p>" for note in cells.notes)
    return (
        f'<table><caption style="text-align: left">{escape(cells.title)}</caption><thead>{head}</thead>'
        f"<tbody>{body}</tbody>{total}</table>{notes}"
    )


def _with_short_name(row: list[str]) -> list[str]:
    """A name of hundreds of characters would leave the columns of numbers no room."""
    return [shown(row[0], _MAX_NAME), *row[1:]]


def _row(tag: str, texts: Sequence[str]) -> str:
    styles = ["text-align: left; word-break: break-all"] + ["text-align: right"] * (len(texts) - 1)
    cells = (f'<{tag} style="{s}">{escape(t).replace(chr(10), "<br>")}</{tag}>' for s, t in zip(styles, texts))
    return f"<tr>{''.join(cells)}</tr>"
