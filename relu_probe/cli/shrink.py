"""`relu-probe shrink`: writes a saved model without its dead neurons."""

import argparse
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from relu_probe.cli import data_file, model_file
from relu_probe.cli.files import check_distinct, check_outputs
from relu_probe.cli.model_command import (
    DATA,
    SECURITY,
    add_batch_size,
    add_model_and_data,
    add_switches,
    load_model,
    run_command,
)
from relu_probe.cli.streams import say
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.replaced_file import replaced_file

WRITTEN, NOTHING_REMOVED = 0, 1

EXAMPLES = f"""\
exit code: 0 the smaller model is written, 1 no unit can be removed and nothing
is written, 2 could not shrink

The smaller model predicts the same on the data, up to rounding, or nothing is
written. With --bounds it predicts the same on every input within them.

{SECURITY}

examples:
  relu-probe shrink model.keras --data validation.npz -o small.keras
  relu-probe shrink model.keras --data validation.npz -o small.keras \\
    --bounds 0 1

{DATA}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.epilog = EXAMPLES
    add_model_and_data(parser)
    add = parser.add_argument
    add("-o", "--output", metavar="SMALL", required=True, help="the .keras file to write")
    add(
        "--bounds",
        metavar=("LOW", "HIGH"),
        nargs=2,
        type=float,
        help="remove only neurons that no input between these numbers makes fire",
    )
    add("--layers", metavar="GLOB", action="append", help="remove only the neurons of these layers; may be repeated")
    add_batch_size(parser)
    add_switches(parser, quiet="print the verdict only: no table, no progress")


def run(args: argparse.Namespace) -> int:
    """Runs the command: prints what was removed and left. Returns the exit code."""
    return run_command(args, _shrink, "could not shrink")


def _shrink(args: argparse.Namespace) -> tuple[int, str]:
    if not args.output.endswith(".keras"):
        raise ValueError(f"{args.output} is no .keras file; expected a name such as small.keras.")
    check_outputs([args.output])
    model_file.check_model_file(args.model, args.trust_model)
    data = data_file.load_data(args.data)
    inputs = [args.model, data_file.file_of(args.data)]
    check_distinct(args.output, [path for path in inputs if path is not None])
    model = load_model(args)
    from relu_probe.cure.shrink import shrink

    options: dict[str, Any] = {} if args.bounds is None else {"bounds": tuple(args.bounds), "remove": "certified"}
    with redirect_stdout(sys.stderr):  # Keras's progress bar
        found = shrink(model, data, batch_size=args.batch_size, layers=args.layers, **options)
    if not args.quiet:
        say(str(found))
    if not found.units_removed:
        return NOTHING_REMOVED, "no unit can be removed; nothing is written"
    _write(found.model, args.output)
    before, after = found.parameters
    return WRITTEN, f"{shown(args.output)} has {after:,} parameters, {before - after:,} fewer"


def _write(model: Any, path: str) -> None:
    with TemporaryDirectory() as directory:
        file = Path(directory, "model.keras")
        model.save(file)
        with file.open("rb") as saved, replaced_file(path, binary=True) as target:
            shutil.copyfileobj(saved, target)
