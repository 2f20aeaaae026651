"""`relu-probe demo`: tests on real data whether a Dense layer's bias can be initialized to zero."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

from relu_probe.cli.findings import Outcome, findings, outcome_table
from relu_probe.cli.streams import complain, say, silenced
from relu_probe.report.text_table import wrapped

NEXT = """\
Next, your own model: train it with model.fit(..., callbacks=[ReluProbe()]),
or check a saved one with
  relu-probe check model.keras --data validation.npz"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument(
        "--log-dir", help="directory for TensorBoard, with a run for each training (default: a new logs/demo-...)"
    )
    parser.add_argument("--epochs", type=_at_least(1), default=5, help="epochs of training (default: %(default)s)")
    parser.add_argument(
        "--seed",
        type=_at_least(0),
        default=0,
        help="seed of the data split, the weights and the order of the samples (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command: trains, prints a table and the findings. Returns the exit code, 2 if the demo cannot run."""
    log_dir = args.log_dir or time.strftime("logs/demo-%Y%m%d-%H%M%S")
    if obstacle := _obstacle(log_dir):
        complain(f"relu-probe demo: {obstacle}")
        return 2
    _train_and_report(log_dir, args.epochs, args.seed)
    return 0


def _obstacle(log_dir: str) -> str:
    """The reason why the demo cannot run, found before the slow import of TensorFlow; "" if it can."""
    if find_spec("sklearn") is None:
        return (
            "scikit-learn is not installed, and the demo trains on its handwritten digits. "
            f"Install it: {sys.executable} -m pip install scikit-learn"
        )
    if os.path.exists(log_dir) and not os.path.isdir(log_dir):
        return f"--log-dir {log_dir} is a file; expected a directory, or a path that does not exist yet."
    if os.path.isdir(log_dir) and os.listdir(log_dir):
        return (
            f"--log-dir {log_dir} is not empty; expected a new directory: TensorBoard would draw an old and a new run "
            "of one name as one line. Pass another, or none for a new logs/demo-..."
        )
    return ""


def _train_and_report(log_dir: str, epochs: int, seed: int) -> None:
    _show_progress("Loading TensorFlow ...\n")
    with silenced():  # messages about missing GPUs would hide the progress
        outcomes, how_to_open = _train(log_dir, epochs, seed)
    *others, answer = findings(outcomes)
    say(f"\nCan a Dense layer's bias be initialized to zero?\n\n{_paragraph(answer)}\n\n{outcome_table(outcomes)}\n")
    say("\n".join([*map(_paragraph, others), "", how_to_open, "", NEXT]))


def _train(log_dir: str, epochs: int, seed: int) -> tuple[dict[str, Outcome], str]:
    """The outcome of each training, and how to open TensorBoard."""
    from relu_probe.cli import digits
    from relu_probe.tensorboard.summaries import how_to_open

    data, outcomes = digits.load(seed), {}
    for number, name in enumerate(digits.RUNS, 1):
        _show_progress(f"Training {number} of {len(digits.RUNS)}: {name:15} epochs ")
        outcomes[name] = digits.train(name, data, log_dir, epochs=epochs, seed=seed, tick=_tick)
        _show_progress("\n")
    return outcomes, how_to_open(log_dir)


def _paragraph(text: str) -> str:
    return "\n".join(wrapped(text, hanging="  "))


def _show_progress(text: str) -> None:
    """Writes to stderr, so that stdout has the result only."""
    print(text, end="", file=sys.stderr, flush=True)


def _tick(epoch: int) -> None:
    _show_progress(f"{epoch} ")


def _at_least(lowest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number >= {lowest}.")
        return int(text)

    return number
