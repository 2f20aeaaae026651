"""Prints the clinic's table, its sums and how often each kind of advice cured.

`python tests/clinic/table.py [case ...] [--seeds 5]` runs cases, all by default; with `--save` it keeps their rows in results.json,
and with `--missing` it leaves out cases that have a row there.
`python tests/clinic/table.py --sums` prints the sums of the rows that are kept. They stand in the README.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import cases  # noqa: F401  # fills the tables
from rich.console import Console
from rich.table import Table
from trainings import HEALTHY, SICK
from verdict import SEEDS, healthy_verdict, judge

from relu_probe.diagnosis.advice import KINDS

RESULTS = Path(__file__).parent / "results.json"
Rows = dict[str, dict[str, Any]]


def main() -> None:
    """Runs the cases that are named, or all, and prints a row for each as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help="names of cases; all by default")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"paired seeds of each case (default {SEEDS})")
    parser.add_argument("--save", action="store_true", help="keep the rows in results.json")
    parser.add_argument("--sums", action="store_true", help="run nothing, print the sums of the rows that are kept")
    parser.add_argument("--missing", action="store_true", help="run only cases of which no row is kept")
    args = parser.parse_args()
    names = [name for name in [*SICK, *HEALTHY] if name in args.cases or not args.cases]
    names = [name for name in names if not (args.missing and name in kept_rows())]
    rows = kept_rows() if args.sums else run(names, args.seeds, save=args.save)
    print(sums(rows))
    print("Cured: " + ", ".join(f"{kind} {cured}" for kind, cured in cures(rows).items()) + ".")


def run(names: list[str], seeds: int, *, save: bool) -> Rows:
    """The rows of the cases, which are printed, too."""
    table = Table("case", "root", "kinds", "untreated", "treated", "reference", "sick after", "gap closed", "verdict")
    rows: Rows = {}
    for name in names:
        verdict = judge(SICK[name], seeds) if name in SICK else healthy_verdict(HEALTHY[name], seeds)
        rows[name] = verdict.row()
        table.add_row(name, *verdict.cells())
        print(name, *verdict.cells(), sep=" | ", file=sys.stderr, flush=True)
        if save:
            lines = [f"{json.dumps(key)}: {json.dumps(row)}" for key, row in sorted((kept_rows() | rows).items())]
            RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    Console(width=200).print(table)
    return rows


def kept_rows() -> Rows:
    """The rows in results.json of cases that there are."""
    rows: Rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return {name: row for name, row in rows.items() if name in SICK or name in HEALTHY}


def sums(rows: Rows) -> str:
    """How many cases got the right root, the right advice, and were cured."""
    sick, healthy = ([row for name, row in rows.items() if name in group] for group in (SICK, HEALTHY))
    return (
        f"Of {len(sick)} sick trainings {sum(row['root'] for row in sick)} got the right root and "
        f"{sum(row['advice'] for row in sick)} the right advice, and {sum(row['cured'] for row in sick)} were cured by following it; "
        f"{sum(row['advice'] for row in healthy)} of {len(healthy)} healthy ones got none."
    )


def cures(rows: Rows) -> dict[str, str]:
    """For each kind of advice how many of the cases that it was followed in were cured."""
    followed = {
        kind: [row["cured"] for name, row in rows.items() if name in SICK and kind in _kinds(name)] for kind in KINDS
    }
    return {kind: f"{sum(cured)} of {len(cured)}" for kind, cured in followed.items() if cured}


def _kinds(name: str) -> set[str]:
    return {kind for kinds in SICK[name].kinds for kind in kinds.split("|")}


if __name__ == "__main__":
    main()
