"""The summary of the studies of `revive`: a Markdown table, as the README and the notebook show it.

`python tests/benchmarks/revival/summary.py` prints it from the kept results.
"""

from typing import Any

import numpy as np
from results import final_error, flags, interval, load, share

HEADER = (
    "| study | n | nothing | `revive` | `redo` | LeakyReLU | lower rate | standardised | `revive` - nothing, paired |"
)
ARMS = ("nothing", "revive by cause", "redo", "LeakyReLU", "a lower rate", "standardised inputs")


def table() -> str:
    """The table, with 95 % intervals: Student's t over the seeds, for shares Clopper & Pearson's."""
    return "\n".join(
        [HEADER, "|---" * HEADER.count(" |") + "|", *(_row(name, arms) for name, arms in studies().items())]
    )


def studies() -> dict[str, dict[str, Any]]:
    """What is measured -> arm -> the value of each net or seed, in the same order in all arms."""
    birth = {name: 100 * flags(arm["collapsed"]) for name, arm in load("birth").items()}
    found = {"collapse at birth: collapsed, %": birth | {"standardised inputs": birth["standardised targets"]}}
    errors = {key: final_error(bins) for key, bins in load("regression").items()}
    for task in ("flip one", "redraw all"):
        arms = {arm: errors[f"{arm} | {task} | 0.01"] for arm in ARMS if f"{arm} | {task} | 0.01" in errors}
        arms["a lower rate"] = errors[f"nothing | {task} | 0.003"]
        found[f"slow regression, {task}: error at the end"] = arms
    for study, name in (("bad_step", "one bad step: accuracy, %"), ("healthy", "a healthy net: accuracy, %")):
        found[name] = {arm: 100 * np.array(values["accuracy"]) for arm, values in load(study).items()}
    return found


def _row(name: str, arms: dict[str, Any]) -> str:
    digits = 2 if "error" in name else 1
    cells = [_cell(arms[arm], digits, is_share="collapsed" in name) if arm in arms else "" for arm in ARMS]
    gain, half = interval(arms["revive by cause"] - arms["nothing"])
    cells.append(f"{gain:+.{digits}f} ± {half:.{digits}f}")
    return f"| {name} | {len(arms['nothing']):,} | {' | '.join(cells)} |"


def _cell(values: Any, digits: int, *, is_share: bool) -> str:
    if is_share:
        low, high = share(np.count_nonzero(values), len(values))
        return f"{np.mean(values):.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    mean, half = interval(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


if __name__ == "__main__":
    print(table())
