"""Groups of neighbouring layers with similar names, for models with more layers than a picture has rows."""

import re
from collections.abc import Sequence
from itertools import pairwise, takewhile


def layer_groups(names: Sequence[str], most: int) -> list[list[str]]:
    """Returns at most `most` groups of neighbours: again and again, the two whose names agree most are joined.

    Args:
        names: the names of the layers, in the model's order.
        most: the largest number of groups.

    >>> layer_groups(["stem", "block_1/a", "block_1/b", "block_2/a"], 3)
    [['stem'], ['block_1/a', 'block_1/b'], ['block_2/a']]
    """
    groups = [[name] for name in names]
    distances = [_distance(*pair) for pair in pairwise(groups)]
    while len(groups) > most:
        i = distances.index(min(distances))
        groups[i : i + 2] = [groups[i] + groups[i + 1]]
        start = max(i - 1, 0)
        distances[start : i + 2] = [_distance(*pair) for pair in pairwise(groups[start : i + 2])]
    return groups


def group_name(names: Sequence[str]) -> str:
    """Returns a name for a group of layers.

    >>> group_name(["block_1/a", "block_1/b", "block_1/relu"]), group_name(["stem"])
    ('block_1/[a to relu]', 'stem')
    """
    if len(names) == 1:
        return names[0]
    common = "".join(_words(names[0])[: _common_words(names[0], names[-1])])
    return f"{common}[{names[0][len(common) :]} to {names[-1][len(common) :]}]"


def _distance(group: Sequence[str], following: Sequence[str]) -> tuple[int, int]:
    """The fewer words the names begin with in common, the larger; then the larger group."""
    return -_common_words(group[0], following[-1]), len(group) + len(following)


def _common_words(first: str, second: str) -> int:
    """Returns with how many words both names begin; the last word never counts."""
    pairs = zip(_words(first)[:-1], _words(second)[:-1])
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _words(name: str) -> list[str]:
    """Returns the words of a name, each with the separator behind it.

    >>> _words("conv2_block1/relu")
    ['conv2_', 'block1/', 'relu']
    """
    return re.findall(r"[^/_.]*[/_.]|[^/_.]+$", name)
