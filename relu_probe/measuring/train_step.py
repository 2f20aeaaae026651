"""The counted training step: a train function that counts ReLUs inside Keras's own step, for one step at a time."""

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import tensorflow as tf

from relu_probe.counting.attachment import attached, detach_all
from relu_probe.counting.counters import Counters
from relu_probe.measuring.model_state import ModelState
from relu_probe.structure.keras_layers import run_settings
from relu_probe.structure.relu_layers import find_relus
from relu_probe.structure.train_function import build_train_function, tf_functions, trained_variables
from relu_probe.utils.callback_list import fit_under_way
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.tensorflow_private import lend_trace

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


def begin_counting(model: Any, *, activation_sum: bool = False) -> None:
    """Resets the training counters at the beginning of a fit.

    Raises:
        ValueError: the model has no ReLU.
    """
    training_counters(model, activation_sum=activation_sum).restart()
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


def arm_next_step(model: Any, *, partly_counted: bool = False) -> "CountedTrainFunction | None":
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


class CountedTrainFunction:
    """Calls Keras's train function with probes attached, once for each time that it is armed.

    Once built, it is kept on Keras's train function. A second fit would otherwise reuse a function that was traced without
    probes, and building one for each fit leaks about 1 MB. It does little in each step: it runs with a cold cache, and
    more work would slow down the steps of a small model.

    Args:
        model: the model that is trained.
        original: Keras's train function.
        counters: the counters that the steps add to.
    """

    def __init__(self, model: Any, original: Callable[..., Any], counters: Counters) -> None:
        self.model, self.model_dict, self.original, self.counters = model, model.__dict__, original, counters
        self.function: Any = None  # the counted train function, once it is built
        self.step: Any = None
        self.before: dict[str, Any] = {"train_function": original}  # the model's own attributes
        self.partly_counted = False
        self.warmed_up = False  # all is built and traced: only the step is left to take

    def rearm(self) -> bool:
        """Arms the next step; False if the train function has changed or counting failed: then use `arm_next_step`."""
        model_dict, counters = self.model_dict, self.counters
        if model_dict["train_function"] is not self.original or counters.failure is not None:
            return False
        model_dict["train_function"] = self
        return True

    def __call__(self, iterator: Any) -> Any:
        """Takes one counted training step, and returns the logs that Keras's train function returns."""
        try:
            return self._take_step(iterator)
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        """Undoes all that a step sets, wherever an interrupt struck: also where the step was about to undo it itself."""
        detach_all(self.counters)
        for name, ours in (("train_step", (self.step,)), ("train_function", (self, None))):
            if name in self.model_dict and any(self.model_dict[name] is each for each in ours):
                self.model_dict.pop(name)
                self.model_dict.update({key: value for key, value in self.before.items() if key == name})

    def _take_step(self, iterator: Any) -> Any:
        model_dict, counters = self.model_dict, self.counters
        model_dict["train_function"], counters.untraceable = self.original, None
        before, failed = model_dict.get("train_step", self), False
        self.before = {"train_function": self.original} | ({} if before is self else {"train_step": before})
        try:
            if self.function is None:
                self._build()
            model_dict["train_step"] = self.step  # Keras looks it up when a batch of a new shape is traced
            logs = self.function(iterator)
            if self.warmed_up:
                return logs
        except Exception:
            if counters.untraceable is None:  # the step was run, and cannot be repeated: its batch is consumed
                raise
            failed = True
        finally:
            if before is self:
                model_dict.pop("train_step", None)
            else:
                model_dict["train_step"] = before
        if failed:
            counters.give_up()
            return self.original(iterator)
        if self.partly_counted:
            _trace(self.original, iterator)
        lend_trace(self.function, self.original)
        self.warmed_up = True
        return logs

    def _build(self) -> None:
        try:
            _check_trainable(self.model, self.original)
            self.step = counted_step(self.model.train_step, self.counters)
            self.function = build_train_function(self.model, self.step)
            self.original._relu_probe = self  # type: ignore[attr-defined]
        except Exception as error:
            self.counters.untraceable = error
            raise


def _check_trainable(model: Any, original: Any) -> None:
    """Raises RuntimeError if a new trace would train other weights than Keras's own trace.

    Until the next compile(), Keras 3 uses the step that it has traced, even if weights were frozen since. (tf_keras
    restores what was trainable at compile() for the time of a fit.)
    """
    traced = any(f.experimental_get_tracing_count() for f in tf_functions(original))
    if traced and (frozen := [v.path for v in trained_variables(model.optimizer) if not v.trainable]):
        raise RuntimeError(
            f"{frozen[0]} was frozen after the training step was traced, and Keras goes on training it until the model "
            "is compiled again; expected model.compile() after a change of `trainable`."
        )


def _trace(original: Any, iterator: Any) -> None:
    """Traces Keras's own function with the first counted step: a later trace would not train weights frozen since."""
    for function in tf_functions(original):
        with suppress(Exception):  # the first call of the function would fail as well, without a probe
            if not function.experimental_get_tracing_count():
                function.get_concrete_function(iterator)


def counted_step(train_step: Callable[..., Any], counters: Counters) -> Callable[..., Any]:
    """`train_step` with probes attached; notes in `counters.untraceable` the error of a step that cannot be traced."""

    def step(data: Any) -> Any:
        try:
            with attached(counters), counters.step(data):
                return train_step(data)
        except Exception as error:
            if not tf.executing_eagerly():  # it was being traced: nothing was run yet
                counters.untraceable = error
            raise

    return step
