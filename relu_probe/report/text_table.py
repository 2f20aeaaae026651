"""Text tables and paragraphs for a terminal of any width, a pipe or a file. No number is ever cut."""

import shutil
import sys
import textwrap
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

PROSE_WIDTH = 80  # of paragraphs, where there is no terminal
_MIN_NAME = 8  # characters
_MAX_NAME = 120  # at any width: names come from files
_WANTED_NAME = 12  # a column is left out rather than that names are shorter
_GAP = "  "

Row = Sequence[str] | None  # None is a rule


def terminal_width() -> int | None:
    """Returns the columns of the terminal that standard output goes to; None for a pipe, a file or a notebook."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def wrapped(text: str, indent: str = "", hanging: str = "", width: int | None = None) -> list[str]:
    """Returns a paragraph as lines. A word that is longer than a line is not broken: it may be a number.

    Args:
        text: the paragraph.
        indent: what the first line begins with.
        hanging: what the other lines begin with.
        width: the number of characters in a line; None for the terminal's, or 80 without a terminal.
    """
    return textwrap.wrap(
        text,
        width or terminal_width() or PROSE_WIDTH,
        initial_indent=indent,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def text_table(
    headers: Sequence[str], rows: Sequence[Row], width: int | None = None, optional: Sequence[int] = ()
) -> str:
    """Returns a table: the first column, names, to the left, the others, numbers, to the right.

    If it is wider than `width`, the first of the `optional` columns is left out, then names are shortened in the middle,
    and last the other optional columns are left out. Numbers stay whole: a table that needs more is wider than `width`.

    Args:
        headers: one for each column; "\\n" breaks a line.
        rows: the cells of each row; None for a rule.
        width: the width to keep to, in characters; None for as much as is needed.
        optional: indices of the columns that may be left out, the first to go first.

    >>> print(text_table(["layer", "N"], [["block_16_expand_relu", "1,000"], None, ["total", "1,000"]], width=20))
    layer              N
    --------------------
    block_16…relu  1,000
    --------------------
    total          1,000
    """
    columns = list(range(len(headers)))
    table = [row for row in (headers, *rows) if row is not None]
    widths = [max(cell_len(line) for row in table for line in row[column].split("\n")) for column in columns]
    longest = min(max(widths[0], _MIN_NAME), _MAX_NAME)
    for left_out in (None, *optional):
        columns = [column for column in columns if column != left_out]
        room = longest if width is None else width - sum(len(_GAP) + widths[column] for column in columns[1:])
        if room >= (longest if left_out is None and optional else min(longest, _WANTED_NAME)):
            break
    widths[0] = max(_MIN_NAME, min(longest, room))
    needed = sum(widths[column] for column in columns) + len(_GAP) * (len(columns) - 1)
    rule = "-" * (needed if needed == width else needed + 1)
    lines = [*_lines(headers, columns, widths, at_bottom=True), rule]
    for row in rows:
        lines += [rule] if row is None else _lines(row, columns, widths)
    return "\n".join(lines)


def middle_cut(name: str, width: int) -> str:
    """Returns `name` with its middle left out if it takes more than `width` columns of a terminal.

    >>> middle_cut("block_16_expand_relu", 13)
    'block_16…relu'
    """
    if cell_len(name) <= width:
        return name
    ellipsis = if_printable("…", "...")
    tail = name[-((width - len(ellipsis)) // 3) :]
    return f"{set_cell_size(name, width - len(ellipsis) - cell_len(tail))}{ellipsis}{tail}"


def if_printable(text: str, otherwise: str) -> str:
    """Returns `text` if the encoding of standard output has its characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return otherwise
    return text


def _lines(row: Sequence[str], columns: list[int], widths: list[int], *, at_bottom: bool = False) -> list[str]:
    """Returns the lines of a row; cells of fewer lines stand at its top, those of the headers at the bottom."""
    cells = [row[column].split("\n") for column in columns]
    height = max(map(len, cells))
    gaps = [[""] * (height - len(cell)) for cell in cells]
    filled = [gap + cell if at_bottom else cell + gap for gap, cell in zip(gaps, cells)]
    return [_line(parts, [widths[column] for column in columns]) for parts in zip(*filled)]


def _line(cells: Sequence[str], widths: list[int]) -> str:
    name = set_cell_size(middle_cut(cells[0], widths[0]), widths[0])
    numbers = [" " * (width - cell_len(cell)) + cell for cell, width in zip(cells[1:], widths[1:])]
    return _GAP.join([name, *numbers]).rstrip()
