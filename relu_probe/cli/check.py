"""Are the ReLUs of a saved model alive? `relu-probe check` answers with an exit code, for CI."""

import argparse
import os
import sys
import traceback
from contextlib import nullcontext, redirect_stdout
from textwrap import shorten
from typing import Any

from relu_probe.cli import check_inputs
from relu_probe.cli.quiet import quiet
from relu_probe.report.export import write_csv, write_json
from relu_probe.report.limits import Limits, explain, unmeasured
from relu_probe.report.report import Report

ALIVE, EXCEEDED, NOT_MEASURED = 0, 1, 2

EXAMPLES = """\
exit code: 0 alive, 1 a limit is exceeded, 2 could not measure

examples:
  relu-probe check model.keras --data validation.npz
  relu-probe check model.keras --data validation.npz --max-dead 0.05 --max-zero-gradient 0.1
  relu-probe check model.keras --data my_package.data:validation --layers "conv*" --json report.json

validation.npz comes from np.savez("validation.npz", x=x, y=y): it is read batch by batch, and may be larger than
memory. What np.savez_compressed writes is unpacked in memory. Without y no gradients are counted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("model", metavar="MODEL", help="a .keras file, or with --trust-model an .h5 file")
    add("--data", metavar="FILE", required=True, help="an .npz file with x and y, or module:function giving a dataset")
    add(
        "--max-dead",
        metavar="F",
        type=_fraction,
        default=0.0,
        help="the largest dead fraction of a layer (default: %(default)s)",
    )
    add(
        "--max-zero-gradient",
        type=_fraction,
        help="the largest fraction of a layer without gradient (default: no limit)",
    )
    add("--layers", metavar="GLOB", action="append", help="check these layers only; may be given more than once")
    add(
        "--batch-size",
        metavar="N",
        type=_positive,
        default=32,
        help="samples a step, for an .npz file (default: %(default)s)",
    )
    add("--json", metavar="FILE", help="write the report there, for Report.from_dict")
    add("--csv", metavar="FILE", help="write one row a neuron there")
    add("--trust-model", action="store_true", help="load a model file that carries code, and run that code")
    add("--debug", action="store_true", help="show tracebacks, and what TensorFlow has to say")


def run(args: argparse.Namespace) -> int:
    """Prints the report to stdout and one line to stderr."""
    try:
        with nullcontext() if args.debug else quiet():
            code, line = _check(args)
    except (Exception, SystemExit) as error:  # a module's sys.exit(0) must not pass for "alive"
        if args.debug:
            traceback.print_exc()
        code, line = NOT_MEASURED, f"could not measure: {_one_line(error)}"
    print(f"relu-probe check: {line}", file=sys.stderr)
    return code


def _check(args: argparse.Namespace) -> tuple[int, str]:
    limits = Limits(args.max_dead, args.max_zero_gradient)
    taken = [args.model, args.data]
    for path in (path for path in (args.json, args.csv) if path is not None):
        _refuse_output(path, taken)
        taken.append(path)
    check_inputs.refuse_model(args.model, args.trust_model)
    data = check_inputs.load_data(args.data)
    _progress("Loading TensorFlow and the model ...")
    model = check_inputs.load_model(args.model, args.trust_model, needs_loss=args.max_zero_gradient is not None)
    report = _measure(model, data, args)
    print(report)
    if args.json:
        write_json(report.to_dict(), args.json)
    if args.csv:
        write_csv(report.layers, report.epoch, args.csv)
    return _verdict(report, limits)


def _measure(model: Any, data: Any, args: argparse.Namespace) -> Report:
    from relu_probe.measuring.measure import measure

    with redirect_stdout(sys.stderr):  # Keras's progress bar
        return measure(model, data, batch_size=args.batch_size, layers=args.layers, verbose=int(sys.stderr.isatty()))


def _verdict(report: Report, limits: Limits) -> tuple[int, str]:
    if why := unmeasured(report.layers) or limits.missing_gradients(report.layers):
        raise ValueError(why)
    if found := limits.exceeded_by(report.layers):
        return EXCEEDED, explain(report.layers, found).splitlines()[0]
    return ALIVE, f"alive: no layer above {limits} on {report.samples:,} samples"


def _refuse_output(path: str, taken: list[str]) -> None:
    directory = os.path.dirname(path) or "."
    if not path or os.path.isdir(path) or not os.path.isdir(directory) or not os.access(directory, os.W_OK):
        raise ValueError(f"{path or repr(path)} cannot be written; expected a file in a directory that exists.")
    if os.path.realpath(path) in map(os.path.realpath, taken):
        raise ValueError(f"{path} is read or written already; expected another file for each. Nothing was overwritten.")


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def _one_line(error: BaseException) -> str:
    name = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return shorten(f"{name}{error}", 600, placeholder=" ...")


def _fraction(text: str) -> float:
    try:
        return float(Limits(max_dead=float(text)).max_dead or 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a fraction from 0 to 1") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number >= 1")
    return int(text)
