"""What are layers called, and which of these names are asked for? The one rule for names and globs."""

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The name itself, else those that the glob matches.

    >>> matching(["conv_1", "conv_2", "dense"], "conv*")
    ['conv_1', 'conv_2']
    """
    names = list(names)
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


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
