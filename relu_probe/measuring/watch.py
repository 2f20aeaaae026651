"""The context manager `watch`, which counts the ReLUs of a model in a custom training loop."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from relu_probe.counting.attachment import attached, detach_all
from relu_probe.counting.counters import Counters
from relu_probe.measuring.model_state import ModelState
from relu_probe.measuring.watch_block import Watch
from relu_probe.structure.layer_matching import select_before_a_step
from relu_probe.structure.relu_layers import find_relus
from relu_probe.structure.run_settings import compile_config
from relu_probe.structure.support import check_model
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.validation import check_run

_FUNCTIONS = ("train_function", "test_function", "predict_function")


@contextmanager
def watch(
    model: Any, layers: Any = None, *, log_dir: str | os.PathLike[str] | None = None, name: str = "relu_probe"
) -> Iterator[Watch]:
    """Counts every call of the model in the block: for a custom training loop, or `train_on_batch`.

    With `w.end_epoch(epoch)` at the end of each epoch, the block has a report for each, and TensorBoard shows them. In its
    reports the calls of the model, from 0, take the place of training steps.

    A `tf.function` that calls the model must be traced inside a `watch`; later blocks of that model count it too.

    Args:
        model: a Keras model.
        layers: names, globs or layer objects; a layer of a nested model by its path, such as "encoder/*"; None for every
            ReLU layer.
        log_dir: TensorBoard's directory; the event file goes to `{log_dir}/{name}`. None for no event file.
        name: the name of the run directory; no other run may use it at the same time.

    Raises:
        ValueError: the model has no ReLU, `layers` names none, or `log_dir` or `name` is wrong.
        tf.errors.OpError: the event file cannot be written.
        RuntimeError: the block is inside another watch of this model.

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
    check_run(log_dir, name)
    counters = _watch_counters(model)
    if counters.users:
        raise RuntimeError(
            f"model {shown(repr(model.name))} is already watched, and a second watch would reset its counts; expected one block at a "
            "time. Use the report() of the outer one."
        )
    select_before_a_step(list(counters.relus.values()), layers, model)
    state = ModelState.of(model)
    if state.newest_watch is not None and (before := state.newest_watch()) is not None:
        before.end()  # if its block raised: reading is a collective, in which a worker with an error must not be alone
    counters.restart()
    block = Watch(model, counters, layers, log_dir, name)
    state.newest_watch = weakref.ref(block)
    try:
        with attached(counters), _keras_functions_replaced(model, counters):
            yield block
        block.end()
    except BaseException:  # an interrupt may have struck while something was put back
        detach_all(counters)
        raise
    finally:
        block.close()


def _watch_counters(model: Any) -> Counters:
    relus, state = find_relus(model), ModelState.of(model)
    counters = state.watch_counters
    if counters is None or counters.strategy is not model.distribute_strategy or not counters.traces(relus):
        counters = state.watch_counters = Counters(model, relus, calls=True, activation_sum=True)
    return counters


class _WatchedFunctions:
    """Keras's functions that were made in a watch: name -> (the function that it replaces, the function).

    They hold the model, so only the model may hold them. This is no dict: Keras looks through a model's dicts when it
    saves the model.

    Args:
        counters: the counters that the functions' traces add to.
        compiled: the model's compilation; after another `compile` the functions would use the previous optimizer.
    """

    def __init__(self, counters: Counters, compiled: Any) -> None:
        self.counters, self.compiled = counters, compiled
        self.made: dict[str, tuple[Any, Any]] = {}

    def get(self, name: str, original: Any) -> Any:
        """The function to use instead of `original`; None if `make_train_function(force=True)` made a new original."""
        before, made = self.made.get(name, (None, None))
        return made if before is None or before is original else None


def _watched_functions(model: Any, counters: Counters) -> _WatchedFunctions:
    kept: _WatchedFunctions | None = model.__dict__.get("_relu_probe_watched")
    compiled = compile_config(model)
    if kept is None or kept.counters is not counters or kept.compiled is not compiled:
        kept = _WatchedFunctions(counters, compiled)
    return kept


@contextmanager
def _keras_functions_replaced(model: Any, counters: Counters) -> Iterator[None]:
    """Replaces Keras's cached functions (of `train_on_batch`, `evaluate`) in the block, so that they are traced with probes.

    The functions made inside are kept for the next `watch`, so that nothing is traced twice.
    """
    before = {name: model.__dict__.get(name) for name in _FUNCTIONS}
    watched = _watched_functions(model, counters)

    def restore() -> None:
        """May be called again, also after an interrupt at any of its lines."""
        recompiled = watched.compiled is not compile_config(model)  # in the block: all earlier traces are obsolete
        kept = _watched_functions(model, counters) if recompiled else watched
        for name, original in list(before.items()):
            if (made := model.__dict__.get(name)) is not None and made is not original:
                kept.made[name] = original, made
                model.__dict__["_relu_probe_watched"] = kept
            model.__dict__[name] = None if recompiled else original
            del before[name]

    counters.detach.append(restore)
    try:
        for name, original in before.items():
            model.__dict__[name] = watched.get(name, original)
        yield
    finally:
        restore()
