"""Which of these names are asked for? The one rule for names and globs."""

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The name itself, else those that the glob matches.

    >>> matching(["conv_1", "conv_2", "dense"], "conv*")
    ['conv_1', 'conv_2']
    """
    names = list(names)
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
