"""Text of foreign origin, such as layer names from a model file, made harmless for terminals and logs."""

import re
import unicodedata

# GitHub Actions reads a line that begins with "::" as a command, Azure Pipelines one with "##[" or "##vso[".
_COMMAND_MARKS = re.compile(r"(?<=:):|(?<=#)#")


def shown(text: object, most: int = 120) -> str:
    r"""Returns `str(text)` on one line, with control characters escaped, and its middle left out if it is too long.

    Names come from model files, and messages of Keras repeat them. Printed as they are, they could clear the screen, set
    the title of the terminal, or give commands to the CI.

    Args:
        text: a name or a message.
        most: the largest number of characters of the result.

    >>> shown("conv\x1b[2J\n::error::")
    'conv\\x1b[2J\\n:\\x3aerror:\\x3a'
    >>> shown("a" * 50 + "b" * 50, most=20)
    'aaaaaaaaaaa...bbbbbb'
    """
    text = _shortened(str(text), most)  # before the escaping: it may be a hundred million characters long
    if not text.isprintable():
        text = "".join(character if _is_harmless(character) else _escaped(character) for character in text)
    return _shortened(_COMMAND_MARKS.sub(lambda mark: _escaped(mark[0]), text), most)


def shown_names(names: object, most: int = 10) -> str:
    """Returns the names, separated by commas; of more than `most` only the first, and how many there are.

    >>> shown_names(["conv", "dense"]), shown_names(map(str, range(12)), most=3)
    ('conv, dense', '0, 1, 2, ... (12 in all)')
    """
    listed = list(names)  # type: ignore[call-overload]
    rest = [f"... ({len(listed):,} in all)"] if len(listed) > most else []
    return ", ".join([*map(shown, listed[:most]), *rest])


def _is_harmless(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    escaped = character.encode("unicode_escape").decode()
    return f"\\x{ord(character):02x}" if escaped == character else escaped


def _shortened(text: str, most: int) -> str:
    end = 3 * most // 10
    return text if len(text) <= most else f"{text[: most - 3 - end]}...{text[-end:]}"
