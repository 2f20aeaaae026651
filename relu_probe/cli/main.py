"""Argument parsing for the commands `relu-probe demo` and `relu-probe check`."""

import argparse
from importlib import import_module
from typing import NoReturn

COMMANDS = {
    "demo": "test on scikit-learn's digits whether a zero bias kills ReLUs",
    "check": "fail if ReLUs of a saved model are dead",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exits with code 2 and one line, without the usage that argparse would show."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    A command is a module of this folder with `add_arguments(parser)` and `run(args)`.
    """
    parser = _Parser(prog="relu-probe", description="Are the ReLUs of a Keras model dead?")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(
            name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        import_module(f"relu_probe.cli.{name}").add_arguments(sub)
    args = parser.parse_args(argv)
    return int(import_module(f"relu_probe.cli.{args.command}").run(args))
