"""What are layers called, and which of these names are asked for? The one rule for names and globs."""

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The name itself, else those that the glob matches.

    >>> matching(["conv_1", "conv_2", "dense"], "conv*")
    ['conv_1', 'conv_2']
    """
    names = list(names)
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


def select(names: Iterable[str], patterns: Any, *, expected: str) -> list[str]:
    """Returns the names, in their own order, that match at least one pattern.

    Args:
        names: the names to choose from.
        patterns: a name or a glob, or an iterable of them. A pattern that equals a name means that name alone.
        expected: the end of the error messages, such as "expected names or globs of conv, dense."

    Raises:
        TypeError: a pattern is not a string.
        ValueError: a pattern matches no name, or there are no patterns.

    >>> select(["conv_1", "conv_2", "dense"], ["dense", "*_1"], expected="")
    ['conv_1', 'dense']
    """
    names, found = list(names), set()
    several = isinstance(patterns, Iterable) and not isinstance(patterns, str)
    for pattern in patterns if several else [patterns]:
        if not isinstance(pattern, str):
            raise TypeError(f"layers has {pattern!r:.60} ({type(pattern).__name__}); {expected}")
        if not (matches := matching(names, pattern)):
            raise ValueError(f"layers={pattern!r} matches no layer; {expected}")
        found.update(matches)
    if not found:
        raise ValueError(f"layers={patterns!r} asks for no layer; {expected}")
    return [name for name in names if name in found]


def unique(paths: list[tuple[str, ...]]) -> list[str]:
    """`layer.name` where unique, else the names joined by `/`, with `_1`, `_2` for clashes that remain."""
    counts = Counter(path[-1] for path in paths)
    wanted = [path[-1] if counts[path[-1]] == 1 else "/".join(path) for path in paths]
    taken: set[str] = set()
    keys = []
    for key in wanted:
        free = (
            name
            for i in range(len(paths) + 1)
            if (name := f"{key}_{i}" if i else key) not in taken and (not i or name not in wanted)
        )
        keys.append(next(free, f"{key}_{len(taken)}"))
        taken.add(keys[-1])
    return keys
