"""A Keras callback that tells which ReLUs of a model are dead, since when, why, and what to do.

The public names, as in `from relu_probe import ReluProbe, measure, watch`:

    ReluProbe        the callback for `model.fit`
    measure          counts on data, weights frozen
    watch            counts in a training loop of your own; gives a `Watch`
    diagnose         finds the cause of each dead neuron; gives a `Diagnosis` with a `LayerDiagnosis` for each layer,
                     and `Advice`
    revive           brings dead neurons back without a change of the predictions; gives a `Revival` with a
                     `LayerRevival` for each layer
    Revive           the callback that does so at the ends of epochs
    shrink           makes a smaller model that computes the same without the dead neurons; gives a `Shrunk`
    history          which neurons died and revived, and when; gives a `History` with a `LayerHistory` for each layer
    Report           the counts of all layers; `LayerReport` has those of one layer
    LossJump         a training step at which the loss jumped

All modules of the package are private: they may change in any version.
The names load on first use: importing the package does not import TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relu_probe.callbacks.relu_probe import ReluProbe as ReluProbe
    from relu_probe.callbacks.revive import Revive as Revive
    from relu_probe.cure.revival import LayerRevival as LayerRevival
    from relu_probe.cure.revival import Revival as Revival
    from relu_probe.cure.revive import revive as revive
    from relu_probe.cure.shrink import shrink as shrink
    from relu_probe.cure.shrunk import Shrunk as Shrunk
    from relu_probe.diagnosis.advice import Advice as Advice
    from relu_probe.diagnosis.diagnose import Diagnosis as Diagnosis
    from relu_probe.diagnosis.diagnose import diagnose as diagnose
    from relu_probe.diagnosis.layer_diagnosis import LayerDiagnosis as LayerDiagnosis
    from relu_probe.measuring.measure import measure as measure
    from relu_probe.measuring.watch import watch as watch
    from relu_probe.measuring.watch_block import Watch as Watch
    from relu_probe.report.history import History as History
    from relu_probe.report.history import history as history
    from relu_probe.report.layer_history import LayerHistory as LayerHistory
    from relu_probe.report.layer_report import LayerReport as LayerReport
    from relu_probe.report.loss_jumps import LossJump as LossJump
    from relu_probe.report.report import Report as Report

__version__ = "0.1.0"
_MODULES = {
    "ReluProbe": "callbacks.relu_probe",
    "measure": "measuring.measure",
    "watch": "measuring.watch",
    "diagnose": "diagnosis.diagnose",
    "revive": "cure.revive",
    "Revive": "callbacks.revive",
    "shrink": "cure.shrink",
    "history": "report.history",
    "Report": "report.report",
    "LayerReport": "report.layer_report",
    "Watch": "measuring.watch_block",
    "Diagnosis": "diagnosis.diagnose",
    "Advice": "diagnosis.advice",
    "LayerDiagnosis": "diagnosis.layer_diagnosis",
    "Revival": "cure.revival",
    "LayerRevival": "cure.revival",
    "Shrunk": "cure.shrunk",
    "History": "report.history",
    "LayerHistory": "report.layer_history",
    "LossJump": "report.loss_jumps",
}
__all__ = list(_MODULES)

if not TYPE_CHECKING:  # a type checker would take any name for one that exists

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module 'relu_probe' has no attribute {name!r}; it has {', '.join(__all__)}.")
        return getattr(import_module(f"relu_probe.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
