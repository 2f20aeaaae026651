"""Argument parsing for the commands of `relu-probe`."""

import argparse
import shutil
from functools import partial
from importlib import import_module
from typing import NoReturn

from relu_probe import __version__
from relu_probe.cli.streams import prepare_streams
from relu_probe.report.text_table import PROSE_WIDTH
from relu_probe.utils.foreign_text import shown

COMMANDS = {
    "demo": "test on scikit-learn's digits whether a zero bias kills ReLUs",
    "check": "fail if ReLUs of a saved model are dead",
    "show": "print a file of reports, or make a web page of it",
    "shrink": "write a saved model without its dead neurons",
    "diff": "show how the dead neurons of two reports differ",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exits with code 2 and one line, without the usage that argparse would show."""
        self.exit(2, f"{self.prog}: {shown(message, 600)}; see {self.prog} --help\n")


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    A command is a module of this folder with `add_arguments(parser)` and `run(args)`.
    """
    prepare_streams()
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 0
    return int(import_module(f"relu_probe.cli.{args.command}").run(args))


def _parser() -> argparse.ArgumentParser:
    width = min(PROSE_WIDTH, shutil.get_terminal_size().columns)
    layout = partial(argparse.RawDescriptionHelpFormatter, width=width)
    parser = _Parser(prog="relu-probe", description="Are the ReLUs of a Keras model dead?", formatter_class=layout)
    parser.add_argument("--version", action="version", version=f"relu-probe {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text, formatter_class=layout)
        import_module(f"relu_probe.cli.{name}").add_arguments(sub)
    return parser
