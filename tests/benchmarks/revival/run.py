"""Benchmark of `revive`: what revived neurons are worth in training. `python tests/benchmarks/revival/run.py STUDY` prints a table.

Each study names one primary outcome and one primary comparison, `revive` by cause against nothing; all else is secondary.
The arms are paired: they have the same seeds. `--keep` writes the results to `results/`.

The kept results come from smaller studies than were planned, because the machine had two cores for everything: 300 nets
instead of 1,000 and 30 epochs instead of 60 (birth), 30 nets instead of 100 (digits), and 200,000 examples instead of 300,000
(regression). LeakyReLU and the lower rate have as many tries as `revive`, but not in the regression, where none was tuned.
The study survival counts the revived neurons that fire 1 to 100 epochs later.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import collapse_at_birth
import digits
import results
import slots
import slow_regression

# Study -> how it is run, the number of nets or seeds of each arm, and its arms (of the regression: its models).
STUDIES: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "birth": (collapse_at_birth.run, 300, collapse_at_birth.ARMS),
    "regression": (slow_regression.run, 20, slow_regression.MODELS),
    "bad_step": (digits.run, 30, digits.ARMS),
    "healthy": (digits.run, 30, digits.HEALTHY_ARMS),
    "survival": (partial(digits.run, epochs=digits.BAD_EPOCH + 101), 20, digits.SURVIVAL_ARMS),
    "slots": (slots.run, 300, slots.KINDS),
    "birth_tries": (collapse_at_birth.run, 50, collapse_at_birth.TRIES),
    "bad_step_tries": (digits.run, 12, digits.TRIES),
}


def main() -> None:
    """Runs a study, prints its table and keeps its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--nets", type=int, help="nets, or seeds, of each arm")
    parser.add_argument(
        "--seed", type=int, default=1000, help="the first seed; choices were made with seeds below 1,000"
    )
    parser.add_argument("--examples", type=int, default=200_000, help="of the study regression")
    parser.add_argument("--arms", nargs="*", help="some of the arms; the others stay as they were kept")
    parser.add_argument("--keep", action="store_true", help="write the results to results/")
    options = parser.parse_args()
    run, nets, arms = STUDIES[options.study]
    arms = {name: arm for name, arm in arms.items() if options.arms is None or name in options.arms}
    more = {"examples": options.examples} if options.study == "regression" else {}
    start = time.process_time()
    found: dict[str, Any] = {}
    for name, arm in arms.items():
        found |= run(options.nets or nets, options.seed, arms={name: arm}, **more)
        print(f"{name}: {time.process_time() - start:.0f} s of processor time so far", file=sys.stderr)
        if options.keep:
            kept = results.save(options.study, found, merge=options.arms is not None)
    print(results.table(options.study, kept if options.keep else found))


if __name__ == "__main__":
    main()
