"""How is a training loop of the user's own watched? Probes on all layers, for the time of a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from relu_probe.counting.counters import Counters
from relu_probe.counting.probe import attached
from relu_probe.report.report import Report
from relu_probe.structure.keras_layers import compile_config
from relu_probe.structure.relu_layers import find_relus, select_layers
from relu_probe.structure.support import check_model
from relu_probe.utils.weak_id_dict import WeakIdDict

_kept = WeakIdDict()
_FUNCTIONS = ("train_function", "test_function", "predict_function")


class Watch:
    """What `watch` gives: `report()` is the `Report` of every call of the model so far in the block."""

    def __init__(self, model: Any, counters: Counters, keys: list[str]) -> None:
        self._model = model
        self._counters = counters
        self._keys = keys

    def report(self) -> Report:
        """The counts since the block began, source "watch".

        Raises:
            RuntimeError: no call of the model was counted.
        """
        if self._counters.failure is not None:
            raise self._counters.failure
        missing = self._counters.missing(self._keys)
        report = Report(self._counters.read(self._keys), source="watch", incomplete=missing)
        if not report.samples and missing:
            raise RuntimeError(f"watch could count nothing: {missing}.")
        if not report.samples:
            raise RuntimeError(
                f"watch counted no call of model {self._model.name!r}: it was not called in the block, or only by a "
                "tf.function that was traced before the first watch, which runs without the probes. Make or first call "
                "the tf.function inside the block."
            )
        return report


@contextmanager
def watch(model: Any, layers: Any = None) -> Iterator[Watch]:
    """Counts every call of the model in the block: for a custom training loop, or `train_on_batch`.

    A `tf.function` that calls the model must be traced inside a `watch`; later ones of that model count it too.

    Args:
        model: a Keras model.
        layers: names, globs or layer objects, of nested models paths too, such as "encoder/*"; None for every ReLU layer.

    Raises:
        ValueError: the model has no ReLU, or `layers` names none.
        RuntimeError: it is inside another watch of this model.

    >>> import tensorflow as tf
    >>> model = tf.keras.Sequential(
    ...     [tf.keras.Input((3,)), tf.keras.layers.Dense(2, "relu", kernel_initializer="zeros", name="hidden")])
    >>> with watch(model) as w:
    ...     with tf.GradientTape() as tape:
    ...         loss = tf.reduce_sum(model(tf.ones((8, 3))))
    ...     gradients = tape.gradient(loss, model.trainable_variables)
    >>> w.report().dead_fraction
    1.0
    """
    check_model(model)
    counters = _counters(model)
    if counters.users:
        raise RuntimeError(
            f"model {model.name!r} is watched already, and a second watch would begin its counts anew; expected one block "
            "at a time. Use the report() of the outer one."
        )
    counters.reset()
    with attached(counters), _own_functions(model, counters):
        yield Watch(model, counters, select_layers(list(counters.relus.values()), layers, model))


def _counters(model: Any) -> Counters:
    relus = find_relus(model)
    counters: Counters | None = _kept.get(model)
    if counters is None or not counters.traces(relus):
        counters = _kept[model] = Counters(model, relus)
    return counters


class _Functions:
    """Keras's functions that were made in a watch: name -> (the one it stood in for, the function).

    They hold the model, so only the model may hold them. No dict, which Keras would look through when it saves.

    Args:
        counters: what their traces count into.
        compiled: what `compile` last made; after another one they would train with the optimizer before.
    """

    def __init__(self, counters: Counters, compiled: Any) -> None:
        self.counters, self.compiled = counters, compiled
        self.made: dict[str, tuple[Any, Any]] = {}

    def get(self, name: str, original: Any) -> Any:
        """None where `original` was replaced, by `make_train_function(force=True)`."""
        before, made = self.made.get(name, (None, None))
        return made if before is None or before is original else None


def _functions(model: Any, counters: Counters) -> _Functions:
    kept: _Functions | None = model.__dict__.get("_relu_probe_watched")
    compiled = compile_config(model)
    if kept is None or kept.counters is not counters or kept.compiled is not compiled:
        kept = _Functions(counters, compiled)
    return kept


@contextmanager
def _own_functions(model: Any, counters: Counters) -> Iterator[None]:
    """Keras's cached functions (`train_on_batch`, `evaluate`) are traced anew inside, and put back outside.

    Those made inside are kept for the next `watch`, so that nothing is traced twice.
    """
    before, kept = {name: model.__dict__.get(name) for name in _FUNCTIONS}, _functions(model, counters)
    for name, original in before.items():
        model.__dict__[name] = kept.get(name, original)
    try:
        yield
    finally:
        anew = kept.compiled is not compile_config(model)  # in the block: what was traced before is void
        kept = _functions(model, counters) if anew else kept
        for name, original in before.items():
            if made := model.__dict__[name]:
                kept.made[name] = original, made
                model.__dict__["_relu_probe_watched"] = kept
            model.__dict__[name] = None if anew else original
