"""The counted train function: takes one training step inside Keras's own train function, with probes attached."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import tensorflow as tf

from relu_probe.counting.attachment import attached, detach_all
from relu_probe.counting.counters import Counters
from relu_probe.structure.train_function import build_train_function, tf_functions, trained_variables
from relu_probe.utils.tensorflow_private import lend_trace


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
