"""The verdict on a case: right root, right advice, and whether the advice, followed, cures the training.

The bounds were committed before the runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.stats import t
from trainings import Case, Outcome, Training, run

SEEDS = 5
GAP_CLOSED = 0.9  # of the gap between untreated and reference, on average over the seeds
INTERVAL_ABOVE = 0.5  # the paired 95 % interval of that share


@dataclass(frozen=True)
class Verdict:
    """What the seeds of one case showed. `closed`: for each seed the share of the gap that the treatment closed."""

    outcomes: tuple[tuple[Outcome, ...], ...]  # of each seed: untreated, treated, reference; one of a healthy case
    right_root: bool
    right_kinds: bool
    cured: bool
    closed: np.ndarray | None = None

    def row(self) -> dict[str, Any]:
        """What results.json keeps."""
        row: dict[str, Any] = {"seeds": len(self.outcomes), "advice": bool(self.right_kinds)}
        if self.closed is None:
            return row
        after, closed = max(arms[1].sick for arms in self.outcomes), float(self.closed.mean())
        row |= {"root": self.right_root, "cured": bool(self.cured)}
        return row | {"sick_after": round(after, 2), "closed": round(closed, 2)}

    def cells(self) -> list[str]:
        """The row of the table."""
        first = self.outcomes[0][0].diagnosis
        losses = [f"{np.mean([arms[i].loss for arms in self.outcomes]):.3g}" for i in range(len(self.outcomes[0]))]
        after = "" if self.closed is None else f"{max(arms[1].sick for arms in self.outcomes):.2f}"
        closed = "" if self.closed is None else f"{self.closed.mean():.2f}"
        words = [
            word
            for word, right in (("root", self.right_root), ("kinds", self.right_kinds), ("cure", self.cured))
            if not right
        ]
        kinds = " ".join(dict.fromkeys(advice.kind for advice in first.advice))
        return [
            str(first.first_sick_layer or ""),
            kinds,
            *(losses + ["", ""])[:3],
            after,
            closed,
            f"wrong: {', '.join(words)}" if words else "right",
        ]


def judge(case: Case, seeds: int = SEEDS) -> Verdict:
    """Runs a sick case: each seed untreated, treated and as the reference."""
    outcomes = tuple(
        (
            run(case.train, seed, {}),
            run(case.train, seed, case.treat, diagnosed=False),
            _reference(case.reference, seed),
        )
        for seed in range(seeds)
    )
    diagnoses = [untreated.diagnosis for untreated, _, _ in outcomes]
    losses = np.array([[arm.loss for arm in arms] for arms in outcomes])
    closed = (losses[:, 0] - losses[:, 1]) / (losses[:, 0] - losses[:, 2])
    error = t.ppf(0.975, seeds - 1) * closed.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else 0.0
    well = all(treated.sick <= case.sick_below for _, treated, _ in outcomes)
    return Verdict(
        outcomes,
        right_root=all(_is_root(case.root, found.first_sick_layer) for found in diagnoses),
        right_kinds=all(_are_kinds(case, {advice.kind for advice in found.advice}) for found in diagnoses),
        cured=well and closed.mean() >= GAP_CLOSED and closed.mean() - error > INTERVAL_ABOVE,
        closed=closed,
    )


def healthy_verdict(case: Case, seeds: int = SEEDS) -> Verdict:
    """Runs a healthy case: it must get no advice."""
    outcomes = tuple((run(case.train, seed, {}),) for seed in range(seeds))
    found = [outcome.diagnosis for (outcome,) in outcomes]
    return Verdict(
        outcomes,
        right_root=True,  # a few dead neurons are no advice, and have a layer
        right_kinds=all(each.advice == () for each in found),
        cured=True,
    )


@lru_cache(None)  # several cases have the same data and size, and so the same reference
def _reference(train: Callable[[int], Training], seed: int) -> Outcome:
    return run(train, seed, {}, diagnosed=False)


def _is_root(expected: str, found: str | None) -> bool:
    return expected in (found, "") or (expected.endswith("*") and str(found).startswith(expected[:-1]))


def _are_kinds(case: Case, found: set[str]) -> bool:
    return all(found & set(kind.split("|")) for kind in case.kinds) and not case.forbidden & found
