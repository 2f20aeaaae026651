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
    """Returns the title, the table and the notes as HTML, for notebooks: one number in a cell, the marked rows shaded.

    >>> html_table(ReportCells("title", ["layer"], rows=[], total=["total"])).startswith("<table><caption")
    True
    """
    columns = list(zip(*cells.rows, cells.total or cells.headers))
    spans = [1] + [max(len(_numbers(text)) for text in column) for column in columns[1:]]
    head = _html_row("th", cells.headers, spans)
    body = "".join(_html_row("td", row, spans, marked=i in cells.marked) for i, row in enumerate(cells.rows))
    total = f"<tfoot>{_html_row('th', cells.total, spans)}</tfoot>" if cells.total else ""
    notes = "".join(f"<p>{escape(note)}</p>" for note in cells.notes)
    return (
        f'<table><caption style="text-align: left">{escape(cells.title)}</caption><thead>{head}</thead>'
        f"<tbody>{body}</tbody>{total}</table>{notes}"
    )


def _with_short_name(row: list[str]) -> list[str]:
    """A name of hundreds of characters would leave the columns of numbers no room."""
    return [shown(row[0], _MAX_NAME), *row[1:]]


def _html_row(tag: str, texts: Sequence[str], spans: list[int], *, marked: bool = False) -> str:
    cells = [_html_cells(tag, [texts[0]], 1, "text-align: left; word-break: break-all")] if texts else []
    for text, span in zip(texts[1:], spans[1:]):
        cells.append(_html_cells(tag, _numbers(text), span, "text-align: right"))
    style = ' style="background: rgba(220, 0, 80, 0.15)"' if marked else ""
    return f"<tr{style}>{''.join(cells)}</tr>"


def _html_cells(tag: str, parts: list[str], span: int, style: str) -> str:
    """Returns a cell for each part; a single cell over `span` columns if there are fewer parts."""
    if len(parts) < span:
        parts, style = [" ".join(parts)], f'{style}" colspan="{span}'
    return "".join(f'<{tag} style="{style}">{escape(part).replace(chr(10), "<br>")}</{tag}>' for part in parts)


def _numbers(text: str) -> list[str]:
    """Returns the numbers of a cell, such as "2 25.0%"; the whole text if it has other words."""
    parts = text.split()
    return parts if parts and all(re.fullmatch(r"[<>]?[\d.,]+%?", part) for part in parts) else [text]
