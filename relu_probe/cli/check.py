"""`relu-probe check`: measures the ReLUs of a saved model and ends with an exit code for CI."""

import argparse
import sys
from contextlib import redirect_stdout
from typing import Any

from relu_probe.cli import data_file, model_file
from relu_probe.cli.files import check_distinct, check_outputs, read_report
from relu_probe.cli.model_command import (
    DATA,
    SECURITY,
    add_batch_size,
    add_model_and_data,
    add_switches,
    load_model,
    run_command,
    shows_progress,
)
from relu_probe.cli.streams import say
from relu_probe.report.comparison import compare, not_compared
from relu_probe.report.export import write_csv, write_json
from relu_probe.report.limits import Limits, not_all_counted, unmeasured
from relu_probe.report.report import Report
from relu_probe.utils.wording import number

ALIVE, EXCEEDED = 0, 1
TOLERANCE = 0.05

EXAMPLES = f"""\
exit code: 0 alive, 1 a limit is exceeded, 2 could not measure

{SECURITY}

examples:
  relu-probe check model.keras --data validation.npz
  relu-probe check model.keras --data validation.npz \\
    --max-dead 0.05 --max-zero-gradient 0.1
  relu-probe check model.keras --data my_package.data:validation \\
    --layers "conv*" --json report.json
  relu-probe check model.keras --data validation.npz \\
    --baseline report.json

{DATA} Without y no gradients are counted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.epilog = EXAMPLES
    add_model_and_data(parser)
    add = parser.add_argument
    add(
        "--max-dead",
        metavar="F",
        type=_fraction,
        help="the largest dead fraction allowed in a layer (default: 0, or no limit with --baseline)",
    )
    add(
        "--max-zero-gradient",
        metavar="F",
        type=_fraction,
        help="the largest fraction of neurons without gradient allowed in a layer (default: no limit)",
    )
    add("--require-all", action="store_true", help="fail too if a ReLU of the model cannot be counted")
    add(
        "--baseline",
        metavar="FILE",
        help="an earlier report of --json: fail if a layer's dead fraction rose, or a whole layer died",
    )
    add(
        "--tolerance",
        metavar="F",
        type=_fraction,
        help=f"the rise of a layer's dead fraction that --baseline allows (default: {TOLERANCE})",
    )
    add("--layers", metavar="GLOB", action="append", help="check only these layers; may be repeated")
    add_batch_size(parser)
    add("--json", metavar="FILE", help="write the report to FILE, for Report.from_dict")
    add("--csv", metavar="FILE", help="write one row per neuron to FILE")
    add_switches(parser, quiet="print the verdict only: no table, no progress")


def run(args: argparse.Namespace) -> int:
    """Runs the command: prints the report and the verdict to stdout, an error to stderr. Returns the exit code."""
    return run_command(args, _check, "could not measure")


def _check(args: argparse.Namespace) -> tuple[int, str]:
    if args.tolerance is not None and args.baseline is None:
        raise ValueError("--tolerance without --baseline has no effect; expected both. Pass --baseline report.json.")
    outputs = [path for path in (args.json, args.csv) if path is not None]
    check_outputs(outputs)
    model_file.check_model_file(args.model, args.trust_model)
    baseline = None if args.baseline is None else read_report(args.baseline)
    data = data_file.load_data(args.data)
    inputs = [args.model, args.baseline, data_file.file_of(args.data)]
    for path in outputs:
        check_distinct(path, [one for one in inputs if one is not None])
    report = _measure(data, args)
    if not args.quiet:
        say(str(report))
    if args.json:
        write_json(report.to_dict(), args.json)
    if args.csv:
        write_csv(report.layers, report.epoch, args.csv)
    return _verdict(report, baseline, args)


def _measure(data: Any, args: argparse.Namespace) -> Report:
    model = load_model(args, needs_loss=args.max_zero_gradient is not None)
    from relu_probe.measuring.measure import measure

    with redirect_stdout(sys.stderr):  # Keras's progress bar
        return measure(model, data, batch_size=args.batch_size, layers=args.layers, verbose=int(shows_progress(args)))


def _verdict(report: Report, baseline: Report | None, args: argparse.Namespace) -> tuple[int, str]:
    limits = Limits(0.0 if args.max_dead is None and baseline is None else args.max_dead, args.max_zero_gradient)
    if why := unmeasured(report.layers, report.unseen) or limits.missing_gradients(report.layers):
        raise ValueError(why)
    exceeded = limits.exceeded_by(report.layers)
    above = len({one.layer for one in exceeded})
    found = [f"{number(above, 'layer')} above a limit"] if len(exceeded) > 1 else []
    found += map(str, exceeded)
    if args.require_all and report.unseen:
        found.append(not_all_counted(report.unseen))
    passed = [f"no layer above {limits}"] if limits else []
    if baseline is not None:
        worse, same = _compared(baseline, report, TOLERANCE if args.tolerance is None else args.tolerance)
        found, passed = found + worse, passed + same
    if found:
        return EXCEEDED, "\n".join(found)
    return ALIVE, f"alive: {', and '.join(passed)}, on {number(report.samples, 'sample')}"


def _compared(baseline: Report, report: Report, tolerance: float) -> tuple[list[str], list[str]]:
    """Returns how layers became worse than the baseline, and what is said if none did."""
    changes = compare(baseline, report)
    if all(change.before is None or change.after is None for change in changes):
        raise ValueError(f"the baseline has none of the layers; {not_compared(changes)}. Make it from this model.")
    worse = [text for change in changes if (text := change.worsened(tolerance))]
    both = sum(change.before is not None and change.after is not None for change in changes)
    head = (
        [f"{len(worse)} of {number(both, 'layer')} worse than the baseline (tolerance {tolerance:g})"] if worse else []
    )
    others = not_compared(changes)
    return head + worse, [f"none worse than the baseline{f' ({others})' if others else ''}"]


def _fraction(text: str) -> float:
    try:
        return float(Limits(max_dead=float(text)).max_dead or 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a fraction from 0 to 1") from None
