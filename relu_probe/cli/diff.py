"""`relu-probe diff`: shows how the dead neurons of two report files differ."""

import argparse

from relu_probe.cli.files import read_report
from relu_probe.cli.streams import complain, say
from relu_probe.report.comparison import change_table, compare
from relu_probe.utils.foreign_text import shown

FAILED = 2

EXAMPLES = """\
exit code: 0 however the reports differ, 2 if one cannot be read

example:
  relu-probe check model.keras --data validation.npz --json new.json
  relu-probe diff old.json new.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.epilog = EXAMPLES
    parser.add_argument("before", metavar="A", help="a report that relu-probe check --json wrote")
    parser.add_argument("after", metavar="B", help="a newer one of the same model")


def run(args: argparse.Namespace) -> int:
    """Runs the command: prints a table with a row for each layer. Returns the exit code."""
    try:
        changes = compare(read_report(args.before), read_report(args.after))
    except ValueError as error:
        complain(f"relu-probe diff: {shown(error, 600)}")
        return FAILED
    say(change_table(changes, args.before, args.after))
    return 0
