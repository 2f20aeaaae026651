"""ReLUs that a report does not count: those that cannot be counted, and those that no call reached."""

from collections.abc import Iterable, Mapping

from relu_probe.utils.foreign_text import shown


def united_reasons(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, str]:
    """Returns the names of both mappings. A name keeps the reasons of both, each once.

    >>> united_reasons({"lstm": "in a loop"}, {"lstm": "in a branch", "gru": "in a loop"})
    {'lstm': 'in a branch; in a loop', 'gru': 'in a loop'}
    """
    return {name: union("; ", a.get(name, ""), b.get(name, "")) for name in dict.fromkeys([*a, *b])}


def union(separator: str, *texts: str) -> str:
    """Returns the parts of the texts, each once, sorted.

    >>> union("; ", "disk full", "late; disk full")
    'disk full; late'
    """
    return separator.join(sorted({part for text in texts for part in text.split(separator) if part}))


def coverage_notes(unseen: Mapping[str, str], never_called: Iterable[str]) -> list[str]:
    """Returns a line on the ReLUs that are not counted, and one on those never called; names with one reason together.

    >>> coverage_notes({"lstm": "relu inside its cells", "gru": "relu inside its cells"}, ["spare"])
    ['not counted: lstm, gru (relu inside its cells)', 'never called: spare']
    """
    names: dict[str, list[str]] = {}
    for name, why in unseen.items():
        names.setdefault(why, []).append(name)
    unseen_text = "; ".join(f"{', '.join(map(shown, group))} ({shown(why, 500)})" for why, group in names.items())
    notes = {"not counted": unseen_text, "never called": ", ".join(map(shown, never_called))}
    return [f"{what}: {text}" for what, text in notes.items() if text]
