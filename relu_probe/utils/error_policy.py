"""What happens when measuring or logging fails? One warning; that part is switched off; the training goes on."""

import re
import warnings
from collections.abc import Callable, Collection

# What TensorFlow says before it says what happened inside a graph.
_NO_REASON = ("Graph execution error", "Detected at node", "  File", "<stack traces unavailable>")
_FRAMES = re.compile(r'in user code:\n.*\n    File "[^\n]*\n[^\n]*\n', re.DOTALL)
_DECORATION = re.compile(r"(\w+: )?Exception encountered when calling .*|\x1b\[\d*m|{{.*?}} ?|\[Op:.*?\]( name: ?)?")


class ErrorPolicy:
    """Runs the parts of a probe that must not stop a training, each until it fails.

    Args:
        strict: errors pass.
        passing: the parts whose errors pass in any case.
        lasting: the parts that are run on after an error.

    >>> faults = ErrorPolicy(strict=False)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     faults.run("logging", lambda: 1 / 0)
    False
    >>> faults.run("logging", lambda: print("never called"))
    False
    >>> "logging" in faults, faults.why
    (True, 'logging stopped: ZeroDivisionError: division by zero')
    """

    def __init__(self, strict: bool, *, passing: Collection[str] = (), lasting: Collection[str] = ()) -> None:
        self.strict, self._passing, self._lasting = strict, passing, lasting
        self._reasons: dict[str, str] = {}

    def __contains__(self, part: str) -> bool:
        return part in self._reasons

    @property
    def why(self) -> str:
        """Of all parts that failed, "" where none did."""
        return "; ".join(self._reasons.values())

    def switched_off(self, part: str) -> bool:
        return part in self and part not in self._lasting

    def run(self, part: str, work: Callable[[], None]) -> bool:
        """Whether it was done. KeyboardInterrupt and SystemExit are no errors, and pass."""
        if self.switched_off(part):
            return False
        try:
            work()
        except Exception as error:
            if self.strict or part in self._passing:
                raise
            if part in self:  # said once
                return False
            self._reasons[part] = reason = f"{part} stopped: {_say(error)}"
            warnings.warn(f"relu_probe: {reason} The training goes on. strict=True would raise.", stacklevel=3)
            return False
        return True


def reason(error: Exception) -> str:
    """The first line that says what happened, without the names of nodes and the frames of TensorFlow and Keras.

    >>> reason(ValueError("Graph execution error:\\n\\nIncompatible shapes: [2,7] vs. [2,1] [Op:__inference_step_8]"))
    'Incompatible shapes: [2,7] vs. [2,1]'
    """
    text = _DECORATION.sub("", _FRAMES.sub("", str(error))).strip()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(_NO_REASON)]
    return next(iter(lines), text).partition("\n")[0].strip()


def _say(error: Exception) -> str:
    """In one line; "; " separates reasons from each other."""
    return f"{type(error).__name__}: {reason(error)}".replace("; ", ", ")
