"""Keys of layers, and the globs that match them."""

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Returns the name that equals the pattern; if there is none, the names that the pattern matches as a glob.

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
    """Returns a key for each path: its last name if that is unique, else the names joined by `/`.

    Clashes that remain get `_1`, `_2`.

    >>> unique([("left", "hidden"), ("right", "hidden"), ("out",)])
    ['left/hidden', 'right/hidden', 'out']
    """
    counts = Counter(path[-1] for path in paths)
    preferred = [path[-1] if counts[path[-1]] == 1 else "/".join(path) for path in paths]
    taken: set[str] = set()
    keys = []
    for key in preferred:
        free = (
            name
            for i in range(len(paths) + 1)
            if (name := f"{key}_{i}" if i else key) not in taken and (not i or name not in preferred)
        )
        keys.append(next(free, f"{key}_{len(taken)}"))
        taken.add(keys[-1])
    return keys
