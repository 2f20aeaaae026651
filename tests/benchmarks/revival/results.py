"""The results of the studies of `revive`: where they are kept, their intervals and their tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from relu_probe.report.text_table import text_table

FOLDER = Path(__file__).parent / "results"
Results = dict[str, Any]
LAST_BINS = 3  # of the study regression: 60,000 examples


def save(study: str, found: Results, *, merge: bool) -> Results:
    """Writes the results of a study, a line for each arm; with `merge`, beside those that were kept. Returns what it wrote."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{study}.json"
    found = {**(load(study) if merge and path.exists() else {}), **found}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
    path.write_text(f"{{\n{lines}\n}}\n")
    return found


def load(study: str) -> Results:
    """The results that were kept."""
    return dict(json.loads((FOLDER / f"{study}.json").read_text()))


def interval(values: Any, confidence: float = 0.95) -> tuple[float, float]:
    """The mean and the half width of its interval (Student's t over the seeds).

    >>> interval([1.0, 2.0, 3.0])
    (2.0, 2.484...)
    """
    values = np.asarray(values, float)
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(half)


def share(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share (Clopper & Pearson 1934, Biometrika 26:404)."""
    found = stats.binomtest(int(count), int(total)).proportion_ci(confidence, "exact")
    return float(found.low), float(found.high)


def final_error(bins: Any) -> Any:
    """`(seeds,)`, the mean error over the last bins; study regression."""
    return np.asarray(bins)[:, -LAST_BINS:].mean(axis=1)


def table(study: str, found: Results) -> str:
    """The results as text."""
    columns, rows = {"birth": _birth, "slots": _birth, "regression": _regression}.get(
        study.removesuffix("_tries"), _digits
    )(found)
    return text_table(columns, rows, 140)


def _birth(found: Results) -> tuple[list[str], list[list[str]]]:
    columns = [
        "arm",
        "collapsed at birth",
        "at the end",
        "[95 %]",
        "in training",
        "median error",
        "mean error",
        "against the first arm",
    ]
    first = np.array(next(iter(found.values()))["error"])
    rows = []
    for name, arm in found.items():
        born, end = (flags(arm[key]) for key in ("collapsed_at_birth", "collapsed"))
        low, high = share(end.sum(), len(end))
        each = [f"{born.mean():.1%}", f"{end.mean():.1%}", f"[{low:.2%}, {high:.2%}]", f"{np.sum(end & ~born):,}"]
        error = np.array(arm["error"])
        paired = "{:+.3f} ± {:.3f}".format(*interval(error - first)) if rows else ""
        rows.append([name, *each, f"{np.median(error):.2g}", f"{np.mean(error):.3g}", paired])
    return columns, rows


def flags(text: str) -> Any:
    """`(nets,)` bool, from a text with a digit for each net."""
    return np.array(list(text)) == "1"


def _digits(found: Results) -> tuple[list[str], list[list[str]]]:
    columns = [
        "arm",
        "accuracy, %",
        "against nothing, points",
        "blew up",
        "dead at the end",
        "revived neurons that fire later",
    ]
    nothing = 100 * np.array(found["nothing"]["accuracy"]) if "nothing" in found else None
    rows = []
    for name, arm in found.items():
        accuracy = 100 * np.array(arm["accuracy"])
        against = (
            "" if nothing is None or name == "nothing" else "{:+.2f} ± {:.2f}".format(*interval(accuracy - nothing))
        )
        dead = "" if arm["dead_fraction"] is None else f"{arm['dead_fraction']:.1%}"
        survival = ", ".join(f"{n} epochs {fire / total:.1%}" for n, (fire, total) in arm["survival"].items())
        rows.append([name, "{:.2f} ± {:.2f}".format(*interval(accuracy)), against, f"{arm['blew_up']}", dead, survival])
    return columns, rows


def _regression(found: Results) -> tuple[list[str], list[list[str]]]:
    columns = ["arm", "task", "rate", "lowest", "last 60,000 examples", "against nothing"]
    rows = []
    for key, bins in found.items():
        arm, task, rate = key.split(" | ")
        final = final_error(bins)
        nothing = found.get(f"nothing | {task} | {rate}")
        against = "" if nothing in (None, bins) else "{:+.3f} ± {:.3f}".format(*interval(final - final_error(nothing)))
        lowest = np.mean(bins, axis=0).min()
        rows.append([arm, task, rate, f"{lowest:.3f}", "{:.3f} ± {:.3f}".format(*interval(final)), against])
    return columns, sorted(rows, key=lambda row: (row[1], -float(row[2])))
