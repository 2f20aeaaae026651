"""What the commands that load a model share: their arguments, and how an error is shown."""

import argparse
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from relu_probe.cli import model_file
from relu_probe.cli.streams import complain, say, silenced
from relu_probe.utils.foreign_text import shown

FAILED = 2
SECURITY = f"""\
A model file can carry code. A .keras file is loaded in Keras's safe mode, and
refused if it has a layer that could run code. Everything else needs
--trust-model: .h5 files, every file under tf_keras, and every file with a
Keras older than {model_file.MENDED} (or 3.12.4 of the 3.12 series), whose safe mode
has known holes."""
DATA = """\
Write validation.npz with np.savez("validation.npz", x=x, y=y). It is read batch
by batch, so that it may be larger than memory. A file written with
np.savez_compressed is unpacked in memory."""


def add_model_and_data(parser: argparse.ArgumentParser) -> None:
    """Declares the model and the data."""
    parser.add_argument("model", metavar="MODEL", help="a .keras file, or with --trust-model an .h5 file")
    parser.add_argument(
        "--data",
        metavar="FILE",
        required=True,
        help="an .npz file with x and y, or module:function that returns a dataset",
    )


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Declares the batch size."""
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=_positive,
        default=32,
        help="samples per step, for an .npz file (default: %(default)s)",
    )


def add_switches(parser: argparse.ArgumentParser, quiet: str) -> None:
    """Declares whether the file is trusted, and what is shown; `quiet` is the help of `--quiet`."""
    add = parser.add_argument
    add("--trust-model", action="store_true", help="load a model file that may carry code, and run this code")
    add("-q", "--quiet", action="store_true", help=quiet)
    add("--debug", action="store_true", help="show tracebacks and the messages of TensorFlow")


def load_model(args: argparse.Namespace, *, needs_loss: bool = False) -> Any:
    """The model that the arguments name."""
    if shows_progress(args):
        print("Loading TensorFlow and the model ...", file=sys.stderr)
    return model_file.load_model(args.model, args.trust_model, needs_loss=needs_loss)


def shows_progress(args: argparse.Namespace) -> bool:
    """Whether progress is shown: on a terminal, and not with `--quiet`."""
    return sys.stderr.isatty() and not args.quiet


def run_command(args: argparse.Namespace, work: Callable[[argparse.Namespace], tuple[int, str]], failed: str) -> int:
    """Runs `work` without TensorFlow's messages, and prints the verdict that it returns with its exit code.

    Args:
        args: the arguments of the command.
        work: the command.
        failed: what an error is introduced with, such as "could not measure".

    Returns:
        The exit code, 2 after an error, which is shown in one line.
    """
    name = f"relu-probe {args.command}"
    try:
        with nullcontext() if args.debug else silenced():
            code, verdict = work(args)
    except (Exception, SystemExit) as error:  # sys.exit(0) in the user's module must not pass for success
        if args.debug:
            complain("\n".join(shown(line, 2000) for line in traceback.format_exc().splitlines()))
        complain(f"{name}: {failed}: {_one_line(error)}")
        return FAILED
    say(f"{name}: {verdict}", "red" if code else "green")
    return code


def _one_line(error: BaseException) -> str:
    name = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return shown(" ".join(f"{name}{error}".split()), 600)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number >= 1")
    return int(text)
