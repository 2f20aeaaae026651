"""Prints the clinic's table: `python tests/clinic/table.py [case ...] [--seeds 5]`. Its sums stand in the README."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import cases  # noqa: F401  # fills the tables
import numpy as np
from rich.console import Console
from rich.table import Table
from trainings import HEALTHY, SICK
from verdict import SEEDS, Verdict, healthy_verdict, judge

from relu_probe.diagnosis.advice import KINDS


def main() -> None:
    """Runs the cases that are named, or all, and prints a row for each as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help="names of cases; all by default")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"paired seeds of each case (default {SEEDS})")
    args = parser.parse_args()
    chosen = [name for name in [*SICK, *HEALTHY] if not args.cases or name in args.cases]
    table = Table("case", "root", "kinds", "untreated", "treated", "reference", "sick after", "gap closed", "verdict")
    verdicts: dict[str, Verdict] = {}
    for name in chosen:
        verdict = judge(SICK[name], args.seeds) if name in SICK else healthy_verdict(HEALTHY[name], args.seeds)
        verdicts[name] = verdict
        table.add_row(name, *verdict.cells())
        print(name, *verdict.cells(), sep=" | ", file=sys.stderr, flush=True)
    Console(width=200).print(table)
    print(_sums(list(verdicts.values())))
    print(_cures({name: verdict for name, verdict in verdicts.items() if name in SICK}))


def _sums(verdicts: list[Verdict]) -> str:
    treated = [v for v in verdicts if v.closed is not None]
    return (
        f"{len(verdicts)} cases: right root in {sum(v.right_root for v in verdicts)}, right advice in "
        f"{sum(v.right_kinds for v in verdicts)}; of {len(treated)} sick ones {sum(v.cured for v in treated)} cured "
        f"(mean share of the gap closed {np.mean([np.mean(v.closed) for v in treated] or [np.nan]):.2f})."
    )


def _cures(verdicts: dict[str, Verdict]) -> str:
    """For each kind of advice how many of the cases that it was followed in were cured."""
    cured = {kind: [v.cured for name, v in verdicts.items() if kind in SICK[name].kinds] for kind in KINDS}
    return "Cured: " + ", ".join(f"{kind} {sum(each)} of {len(each)}" for kind, each in cured.items() if each) + "."


if __name__ == "__main__":
    main()
