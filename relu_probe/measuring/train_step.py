"""The counters of the training steps of a fit, and the exchange of Keras's train function for a counted one, for one step at a time."""

import threading
import weakref
from typing import Any

from relu_probe.counting.counters import Counters
from relu_probe.measuring.counted_train_function import CountedTrainFunction
from relu_probe.measuring.model_state import ModelState
from relu_probe.structure.relu_layers import find_relus
from relu_probe.structure.run_settings import run_settings
from relu_probe.utils.callback_list import fit_under_way
from relu_probe.utils.foreign_text import shown

_lock = threading.RLock()


def training_counters(model: Any, *, activation_sum: bool = False) -> Counters:
    """The counters of the model's training steps: one set for each model, shared by all probes of a fit.

    They are kept between fits, and replaced if the model's layers or the way its steps are run changed, or if
    `activation_sum` asks for sums that they do not have.

    Raises:
        ValueError: the model has no ReLU.
    """
    with _lock:
        relus, state, settings = find_relus(model), ModelState.of(model), run_settings(model)
        counters = state.training_counters
        current = counters is not None and counters.traces(relus) and state.training_settings == settings
        if counters is None or not current or (activation_sum and not counters.activation_sum):
            counters = state.training_counters = Counters(model, relus, activation_sum=activation_sum, steps=True)
            state.training_settings = settings
        return counters


def begin_counting(model: Any, *, activation_sum: bool = False, steps: int = 0) -> None:
    """Resets the training counters at the beginning of a fit.

    Args:
        model: the model.
        activation_sum: whether sums of the activations are wanted.
        steps: the number of the fit's first training step. If it is not 0, the steps of the last activities stay.

    Raises:
        ValueError: the model has no ReLU.
    """
    counters = training_counters(model, activation_sum=activation_sum)
    if steps:
        counters.reset(steps)
    else:
        counters.restart()
    fit = fit_under_way()
    ModelState.of(model).counted_fit = None if fit is None else weakref.ref(fit)


def counters_of_current_fit(model: Any) -> Counters:
    """The training counters, to be called by a hook of the fit that they count.

    They may not be the counters that this probe asked for: another probe of the fit may have asked for sums too.

    Raises:
        RuntimeError: a callback called `fit` on the same model, also with a probe, which reset the counters.
    """
    state = ModelState.of(model)
    fit, now = state.counted_fit, fit_under_way()
    if fit is not None and now is not None and fit() is not now:
        raise RuntimeError(
            f"a callback of this fit trained the same model {shown(repr(model.name))} in a fit with a probe, which reset the counts "
            "of this fit; expected a probe in one of the two. Leave it out of the inner fit, or give it data=."
        )
    assert state.training_counters is not None, "begin_counting comes first"
    return state.training_counters


def arm_next_step(model: Any, *, partly_counted: bool = False) -> CountedTrainFunction | None:
    """Makes the next call of `model.train_function` a counted one; that call first restores the original function.

    Args:
        partly_counted: other steps of this fit are taken without counting, by Keras's own function.

    Returns:
        The function that was put there, whose `rearm()` does the same for the next step. None if another probe of the fit
        put it there, or if nothing can be counted.
    """
    original, counters = model.train_function, ModelState.of(model).training_counters
    if counters is None or counters.failure is not None or isinstance(original, CountedTrainFunction):
        return None
    if original is None:
        counters.failure = RuntimeError(
            "the hooks of the callback were called without a fit, and the model has no training step yet; expected "
            "model.fit(callbacks=[probe]). For a training loop of your own use `with watch(model) as w`."
        )
        return None
    counted: CountedTrainFunction | None = getattr(original, "_relu_probe", None)
    if counted is None or counted.counters is not counters:
        counted = CountedTrainFunction(model, original, counters)
    counted.partly_counted, counted.warmed_up = partly_counted, False
    model.__dict__["train_function"] = counted
    return counted


def disarm(model: Any) -> None:
    """Restores the train function if no step has used the counted one: hooks called by hand need not take a step."""
    if isinstance(counted := model.train_function, CountedTrainFunction):
        model.__dict__["train_function"] = counted.original
