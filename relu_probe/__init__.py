"""Are the ReLUs of a Keras model dead: which, since when, why, and what to do?

    from relu_probe import ReluProbe, measure, watch

The names load on first use: importing the package does not import TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relu_probe.callback import ReluProbe as ReluProbe
    from relu_probe.counts import LayerReport as LayerReport
    from relu_probe.diagnosis import Diagnosis as Diagnosis
    from relu_probe.diagnosis import diagnose as diagnose
    from relu_probe.lives import history as history
    from relu_probe.measuring import measure as measure
    from relu_probe.report import Report as Report
    from relu_probe.watching import watch as watch

__version__ = "0.1.0"

_HOME = {
    "ReluProbe": "callback",
    "measure": "measuring",
    "watch": "watching",
    "diagnose": "diagnosis",
    "Diagnosis": "diagnosis",
    "history": "lives",
    "Report": "report",
    "LayerReport": "counts",
}
__all__ = ["Diagnosis", "LayerReport", "ReluProbe", "Report", "diagnose", "history", "measure", "watch"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'relu_probe' has no attribute {name!r}; it has {', '.join(__all__)}.")
    return getattr(import_module(f"relu_probe.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
