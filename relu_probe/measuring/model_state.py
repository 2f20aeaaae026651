"""The record of what is kept about a model between its measurements, watches and fits."""

import threading
import weakref
from dataclasses import dataclass
from typing import Any

from relu_probe.counting.counters import Counters
from relu_probe.measuring.measurer import Measurer
from relu_probe.utils.weak_id_dict import WeakIdDict

_states = WeakIdDict()
_lock = threading.RLock()


@dataclass(eq=False)
class ModelState:
    """What is kept about one model, until the model is gone. Whoever uses a field checks that it still fits the model.

    No field may keep the model alive. So functions of Keras that hold the model are no fields: those made in a `watch` are
    an attribute of the model, and a counted train function is an attribute of the train function that it replaces.

    Args:
        measurer: the step of `measure` and `ReluProbe(data=...)`.
        watch_counters: the counters of `watch`.
        newest_watch: a weak reference to the `Watch` of the newest block.
        training_counters: the counters of training steps in `fit`, shared by all probes of a fit.
        training_settings: the `run_settings` of the model for which the training counters were made.
        counted_fit: a weak reference to Keras's list of callbacks of the fit that these count; None without such a list.
    """

    measurer: Measurer | None = None
    watch_counters: Counters | None = None
    newest_watch: "weakref.ref[Any] | None" = None
    training_counters: Counters | None = None
    training_settings: list[Any] | None = None
    counted_fit: "weakref.ref[Any] | None" = None

    @classmethod
    def of(cls, model: Any) -> "ModelState":
        """The model's record, which is made on first use."""
        with _lock:
            state: ModelState | None = _states.get(model)
            if state is None:
                state = _states[model] = cls()
            return state
