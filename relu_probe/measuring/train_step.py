"""How does counting get into Keras's own training step? Through a train function of our own, for one step at a time."""

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import tensorflow as tf

from relu_probe.counting.counters import Counters
from relu_probe.counting.probe import attached
from relu_probe.structure.relu_layers import find_relus
from relu_probe.structure.train_function import build_train_function, tf_functions, trained_variables
from relu_probe.utils.callback_list import fit_under_way
from relu_probe.utils.tensorflow_private import lend_trace
from relu_probe.utils.weak_id_dict import WeakIdDict

_kept = WeakIdDict()
_fits = WeakIdDict()  # Keras's list of callbacks, of the fit that is counted
_lock = threading.RLock()


def training_counters(model: Any, *, activation_sum: bool = False) -> Counters:
    """The counters of the model's training steps: one set a model, shared by all probes of a fit, kept between fits."""
    with _lock:
        relus = find_relus(model)
        counters: Counters | None = _kept.get(model)
        same = counters is not None and counters.traces(relus)
        if counters is None or not same or (activation_sum and not counters.activation_sum):
            counters = _kept[model] = Counters(model, relus, activation_sum=activation_sum, steps=True)
        return counters


def begin_counting(model: Any, *, activation_sum: bool = False) -> None:
    """A fit begins."""
    training_counters(model, activation_sum=activation_sum).restart()
    fit = fit_under_way()
    _fits[model] = None if fit is None else weakref.ref(fit)


def kept_counters(model: Any) -> Counters:
    """Those of the fit that is under way: another probe of it may have asked for richer ones."""
    counters: Counters = _kept.get(model)
    return counters


def counters_of_this_fit(model: Any) -> Counters:
    """For a hook of the fit.

    Raises:
        RuntimeError: a callback called `fit` on the same model, with a probe too, and began to count anew.
    """
    fit, now = _fits.get(model), fit_under_way()
    if fit is not None and now is not None and fit() is not now:
        raise RuntimeError(
            f"a fit of model {model.name!r} inside this one was counted in its place; expected a probe in one of them. "
            "Leave it out of the inner fit, or give it data=."
        )
    return kept_counters(model)


def arm_next_step(model: Any, *, not_all: bool = False) -> "CountedTrainFunction | None":
    """Makes the next call of `model.train_function` a counted one. It takes itself off before it does anything else.

    Args:
        not_all: steps of this fit will be taken without counting, by Keras's own function.

    Returns:
        What was put there, whose `rearm()` does the same for the next step; None where another did it, or none can.
    """
    original, counters = model.train_function, kept_counters(model)
    if isinstance(original, CountedTrainFunction) or counters.failure is not None:  # armed by another probe of this fit
        return None
    if original is None:
        counters.failure = RuntimeError(
            "the hooks of the callback were called without a fit, and the model has no training step yet; expected "
            "model.fit(callbacks=[probe]). For a training loop of your own use `with watch(model) as w`."
        )
        return None
    shot = getattr(original, "_relu_probe", None)
    if shot is None or shot.counters is not counters:
        shot = CountedTrainFunction(model, original, counters)
    shot.not_all, shot.warmed_up = not_all, False
    model.__dict__["train_function"] = shot
    return shot


def disarm(model: Any) -> None:
    """Takes off what no step has used: where the hooks are called by hand, and the model's own step is not."""
    if isinstance(armed := model.train_function, CountedTrainFunction):
        model.__dict__["train_function"] = armed.original


class CountedTrainFunction:
    """Once built it is kept with Keras's train function: a second fit would reuse a function that was traced without
    probes, and one built for each fit leaks about 1 MB. What it does at every step is little, and a small model's step
    would show more of it: the cache that it finds is cold."""

    def __init__(self, model: Any, original: Callable[..., Any], counters: Counters) -> None:
        self.model, self.own, self.original, self.counters = model, model.__dict__, original, counters
        self.function: Any = None  # the counted train function, once it is built
        self.step: Any = None
        self.not_all = self.warmed_up = False  # warmed_up: nothing is left to do but to take the step

    def rearm(self) -> bool:
        """Whether the next step is counted too. `arm_next_step` knows what to do where it is not."""
        own, counters = self.own, self.counters
        if own["train_function"] is not self.original or counters.failure is not None:
            return False
        own["train_function"] = self
        return True

    def __call__(self, iterator: Any) -> Any:
        own, counters = self.own, self.counters
        own["train_function"], counters.untraceable = self.original, None
        before, failed = own.get("train_step", self), False
        try:
            if self.function is None:
                self._build()
            own["train_step"] = self.step  # it is looked up when a batch of a new shape is traced
            logs = self.function(iterator)
            if self.warmed_up:
                return logs
        except Exception:
            if counters.untraceable is None:  # a step was run, and cannot be repeated: its batch is gone
                raise
            failed = True
        finally:
            if before is self:
                own.pop("train_step", None)
            else:
                own["train_step"] = before
        if failed:
            counters.give_up()
            return self.original(iterator)
        if self.not_all:
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
    """Keras 3 goes on with the step it has traced, whatever became frozen since, until compile(); so a new trace would
    train another set of weights than a fit without a probe. (tf_keras undoes such a change for the time of a fit.)
    """
    traced = any(f.experimental_get_tracing_count() for f in tf_functions(original))
    if traced and (frozen := [v.path for v in trained_variables(model.optimizer) if not v.trainable]):
        raise RuntimeError(
            f"{frozen[0]} was frozen after the training step was traced, and Keras goes on training it until the model "
            "is compiled again; expected model.compile() after a change of `trainable`."
        )


def _trace(original: Any, iterator: Any) -> None:
    """Keras's own function, with the first counted step: traced later, it would not train what became frozen since."""
    for function in tf_functions(original):
        with suppress(Exception):  # its first call would fail as well, without us
            if not function.experimental_get_tracing_count():
                function.get_concrete_function(iterator)


def counted_step(train_step: Callable[..., Any], counters: Counters) -> Callable[..., Any]:
    def step(data: Any) -> Any:
        try:
            with attached(counters), counters.step(data):
                return train_step(data)
        except Exception as error:
            if not tf.executing_eagerly():  # nothing was run yet
                counters.untraceable = error
            raise

    return step
