"""Are the ReLUs of a Keras model dead: which, since when, why, and what to do?

    from relu_probe import ReluProbe, measure, watch

The names load on first use: importing the package does not import TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relu_probe.callbacks.relu_probe import ReluProbe as ReluProbe
    from relu_probe.diagnosis.diagnose import Diagnosis as Diagnosis
    from relu_probe.diagnosis.diagnose import diagnose as diagnose
    from relu_probe.measuring.measure import measure as measure
    from relu_probe.measuring.watch import watch as watch
    from relu_probe.report.history import history as history
    from relu_probe.report.layer_report import LayerReport as LayerReport
    from relu_probe.report.report import Report as Report

__version__ = "0.1.0"

_HOME = {
    "ReluProbe": "callbacks.relu_probe",
    "measure": "measuring.measure",
    "watch": "measuring.watch",
    "diagnose": "diagnosis.diagnose",
    "Diagnosis": "diagnosis.diagnose",
    "history": "report.history",
    "Report": "report.report",
    "LayerReport": "report.layer_report",
}
__all__ = ["Diagnosis", "LayerReport", "ReluProbe", "Report", "diagnose", "history", "measure", "watch"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'relu_probe' has no attribute {name!r}; it has {', '.join(__all__)}.")
    return getattr(import_module(f"relu_probe.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
