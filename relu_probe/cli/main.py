"""The commands `relu-probe demo` and `relu-probe check`, also `python -m relu_probe`."""

import argparse
from importlib import import_module
from typing import NoReturn

COMMANDS = {
    "demo": "ask scikit-learn's digits whether a zero bias kills ReLUs",
    "check": "fail when the ReLUs of a saved model have died",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, where argparse would show the usage too."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: list[str] | None = None) -> int:
    """Runs one command: a module with `add_arguments(parser)` and `run(args)`. Returns its exit code."""
    parser = _Parser(prog="relu-probe", description="Are the ReLUs of a Keras model dead?")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(
            name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        import_module(f"relu_probe.cli.{name}").add_arguments(sub)
    args = parser.parse_args(argv)
    return int(import_module(f"relu_probe.cli.{args.command}").run(args))
