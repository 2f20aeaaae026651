"""Keys of layers, and the globs that match them."""

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Returns the name that equals the pattern; if there is none, the names that the pattern matches as a glob.

    >>> matching(["conv_1", "conv_2", "dense"], "conv*")
    ['conv_1', 'conv_2']
    """
    names = list(names)
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


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
