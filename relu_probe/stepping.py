"""How does counting get into Keras's own training step? Through a train function of our own, for one step at a time."""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from relu_probe.counters import Counters
from relu_probe.layers import find_relus
from relu_probe.probe import attached

_kept: "weakref.WeakKeyDictionary[Any, Counters]" = weakref.WeakKeyDictionary()
_lock = threading.RLock()


def training_counters(model: Any, *, activation_sum: bool = False) -> Counters:
    """The counters of the model's training steps: one set a model, shared by all probes of a fit, kept between fits."""
    with _lock:
        relus, counters = find_relus(model), _kept.get(model)
        same = counters is not None and counters.traces(relus)
        if counters is None or not same or (activation_sum and not counters.activation_sum):
            counters = _kept[model] = Counters(model, relus, activation_sum=activation_sum, steps=True)
        return counters


def kept_counters(model: Any) -> Counters:
    """Those of the fit that is under way: another probe of it may have asked for richer ones."""
    return _kept[model]


def count_next_step(model: Any) -> None:
    """Makes the next call of `model.train_function` a counted one. It takes itself off before it does anything else."""
    if not isinstance(model.train_function, _OneShot):  # another probe of this fit may have been here already
        model.__dict__["train_function"] = _OneShot(model, model.train_function)


class _OneShot:
    def __init__(self, model: Any, original: Callable[..., Any]) -> None:
        self.model = model
        self.original = original

    def __call__(self, iterator: Any) -> Any:
        self.model.__dict__["train_function"] = self.original
        counters = kept_counters(self.model)
        try:
            step, function = _counted(self.model, self.original, counters)
        except Exception as error:  # the training goes on, uncounted; who reads the counters is told
            counters.failure = error
            return self.original(iterator)
        with _as_train_step(self.model, step):
            logs = function(iterator)
        _lend_trace(function, self.original)
        return logs


def _counted(model: Any, original: Any, counters: Counters) -> tuple[Any, Any]:
    """The counted step and train function, built once for each train function of Keras's and kept with it.

    A second fit would reuse a function that was traced without probes; building one a fit leaks about 1 MB each.
    """
    kept = original.__dict__.get("_relu_probe")
    if kept is None or kept[0] is not counters:
        step = counted_step(model.train_step, counters)
        names = ("train_function", "train_tf_function")  # the second is tf_keras'
        before = {name: model.__dict__[name] for name in names if name in model.__dict__}
        try:
            with _as_train_step(model, step):
                model.make_train_function(force=True)
            kept = (counters, step, model.train_function)
        finally:
            model.__dict__.update(before)
        original._relu_probe = kept
    return kept[1], kept[2]


def _lend_trace(function: Any, original: Any) -> None:
    """Keras's TensorBoard callback shows the graph of `model.train_function`, and fails where that was never traced."""
    name = "_concrete_variable_creation_fn"  # TensorFlow overwrites it when it traces the original
    if hasattr(function, name) and not hasattr(original, name):
        setattr(original, name, getattr(function, name))


def counted_step(train_step: Callable[..., Any], counters: Counters) -> Callable[..., Any]:
    def step(data: Any) -> Any:
        with attached(counters), counters.step(data):
            return train_step(data)

    return step


@contextmanager
def _as_train_step(model: Any, step: Callable[..., Any]) -> Iterator[None]:
    before = model.__dict__.get("train_step")
    model.__dict__["train_step"] = step
    try:
        yield
    finally:
        if before is None:
            model.__dict__.pop("train_step", None)
        else:
            model.__dict__["train_step"] = before
