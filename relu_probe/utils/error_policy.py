"""The policy for errors of a probe during a fit: one warning, the part that failed is switched off, the training goes on."""

import re
import sys
import warnings
from collections.abc import Callable, Collection
from types import FrameType

from relu_probe.utils.foreign_text import shown

_MOST = 500  # characters of a reason
_LIBRARIES = ("relu_probe", "keras", "tf_keras", "tensorflow", "contextlib")  # whose lines a warning does not name
# Lines that TensorFlow writes before the one that says what happened inside a graph.
_PREAMBLE = ("Graph execution error", "Detected at node", "  File", "<stack traces unavailable>")
_FRAMES = re.compile(r'in user code:\n.*\n    File "[^\n]*\n[^\n]*\n', re.DOTALL)
_DECORATION = re.compile(r"(\w+: )?Exception encountered when calling .*|\x1b\[\d*m|{{.*?}} ?|\[Op:.*?\]( name: ?)?")


class ErrorPolicy:
    """Runs the parts of a probe that must not stop a training, each until it fails.

    Args:
        strict: raise every error.
        always_raise: the parts whose errors are raised in any case.
        keep_running: the parts that are run again after an error.

    >>> policy = ErrorPolicy(strict=False)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     policy.run("logging", lambda: 1 / 0)
    False
    >>> policy.run("logging", lambda: print("never called"))
    False
    >>> "logging" in policy, policy.reasons
    (True, 'logging stopped: ZeroDivisionError: division by zero')
    """

    def __init__(self, strict: bool, *, always_raise: Collection[str] = (), keep_running: Collection[str] = ()) -> None:
        self.strict, self._always_raise, self._keep_running = strict, always_raise, keep_running
        self._reasons: dict[str, str] = {}
        self._raised = 0  # the id of the error that was raised last

    def __contains__(self, part: str) -> bool:
        """Whether the part has failed."""
        return part in self._reasons

    @property
    def reasons(self) -> str:
        """Why parts have failed, in one line; "" if none has."""
        return "; ".join(self._reasons.values())

    def is_switched_off(self, part: str) -> bool:
        """Whether the part has failed and is not run again."""
        return part in self and part not in self._keep_running

    def run(self, part: str, work: Callable[[], None]) -> bool:
        """Calls `work` unless the part is switched off, and returns whether it succeeded.

        KeyboardInterrupt and SystemExit are not caught.
        """
        if self.is_switched_off(part):
            return False
        try:
            work()
        except Exception as error:
            self.handle(part, error)
            return False
        return True

    def handle(self, part: str, error: Exception) -> None:
        """Warns that a part has failed, once; raises an error that is to be raised, or that another part has raised."""
        if self.strict or part in self._always_raise or id(error) == self._raised:
            self._raised = id(error)
            raise error
        if part not in self:
            self._reasons[part] = f"{part} stopped: {_describe(error)}"
            warn(f"relu_probe: {self._reasons[part]} The training goes on. strict=True would raise.")


def warn(message: str) -> None:
    """Warns, naming the user's line that led here, as `model.fit(...)`.

    Where warnings are errors (`-W error`), writes to stderr instead: a warning never ends a training.
    """
    try:
        warnings.warn(message, stacklevel=_level_of_the_user())
    except Warning:
        print(message, file=sys.stderr)


def _level_of_the_user() -> int:
    """Returns the `stacklevel` with which a warning of the caller names the innermost line that is not a library's."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        frame, level = frame.f_back, level + 1
    return level


def reason(error: Exception) -> str:
    """Returns the first line that says what happened, without the names of nodes and the frames of TensorFlow and Keras.

    >>> reason(ValueError("Graph execution error:\\n\\nIncompatible shapes: [2,7] vs. [2,1] [Op:__inference_step_8]"))
    'Incompatible shapes: [2,7] vs. [2,1]'
    """
    text = _DECORATION.sub("", _FRAMES.sub("", str(error))).strip()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(_PREAMBLE)]
    return shown(next(iter(lines), text).partition("\n")[0].strip(), _MOST)


def _describe(error: Exception) -> str:
    """The error in one line, without "; ", which separates reasons from each other."""
    return f"{type(error).__name__}: {reason(error)}".replace("; ", ", ")
