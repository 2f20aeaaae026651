"""The attachment of probes to the layers of a model, for the duration of a step, so that nothing is left on the model."""

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import tensorflow as tf

from relu_probe.counting.counters import Counters
from relu_probe.counting.probe import Probe
from relu_probe.counting.recurrent_cells import with_counted_loop
from relu_probe.structure.call_owners import CallOwner, call_owners
from relu_probe.structure.keras_layers import keras_property
from relu_probe.utils.instance_patch import patch_instance

_WRAPPED = "_relu_probe_wrapped"  # attribute of our wrapper functions: the `call` that they wrap
_lock = threading.RLock()


@tf.autograph.experimental.do_not_convert
@contextmanager
def attached(counters: Counters) -> Iterator[None]:
    """Attaches the probes during the block. Re-entrant, because replicas trace in several threads."""
    with _lock:
        counters.users += 1
    try:
        with _lock:
            owners = _followed(counters) if not counters.detach else []
            searched = counters.everywhere and any(owner.has_functions for owner in owners)
            for owner in owners:
                _attach(owner, counters, searched=searched)
        yield
    finally:
        with _lock:
            counters.users -= 1
            if not counters.users:
                detach_all(counters)


def detach_all(counters: Counters) -> None:
    """Detaches all probes. May be called again after an interrupt, whose place is not known."""
    counters.users = 0
    counters.abandon_step()
    while counters.detach:
        counters.detach[-1]()
        del counters.detach[-1:]


def _followed(counters: Counters) -> list[CallOwner]:
    """Returns the layers whose calls are followed: the ReLU layers; all, if a traced step may have ReLUs written as functions."""
    model, relus = counters.model, [relu for relu in counters.relus.values() if relu.layer is not None]
    if counters.everywhere or not tf.executing_eagerly():
        owners = call_owners(model, relus)
        if any(owner.has_functions for owner in owners):
            return [each for each in owners if each.relu is not None or isinstance(each.layer, tf.keras.layers.Layer)]
    followed = [(model, None)] if counters.everywhere else []
    layers = [*followed, *((relu.layer, relu) for relu in relus)]
    return [CallOwner(layer, relu, "", has_functions=False, in_cell=False) for layer, relu in layers]


def _attach(owner: CallOwner, counters: Counters, *, searched: bool) -> None:
    """Wraps the `call` of the layer instance; `counters.detach` gets a function that restores exactly what was there.

    Args:
        owner: the layer.
        counters: what the counts are added to.
        searched: whether functions are looked for in calls outside of a step.
    """
    layer = owner.layer
    probe = None if owner.relu is None else Probe(owner.relu, counters)
    name = "quantized_call" if keras_property(layer, "quantization_mode") else "call"  # the one that Keras 3 calls
    call = getattr(layer, name)
    original = getattr(call, _WRAPPED, call)  # with two probes the inner one counts, as for `measure` inside `watch`
    call = with_counted_loop(owner, original, counters)

    def counted(*args: Any, **kwargs: Any) -> Any:
        trace = counters.trace
        if trace is None:
            is_outer = layer is counters.model and counters.everywhere
            entered = counters.outermost.entered((args, kwargs), counters.detach) if is_outer else nullcontext()
            with entered, counters.watched.followed(owner, counters) if searched else nullcontext():
                output = call(*args, **kwargs)
        else:
            followed = trace.begin(owner)
            try:
                output = call(*args, **kwargs)
            finally:
                trace.end(followed)
            trace.add_result(output)
        return output if probe is None else probe(output)

    setattr(counted, _WRAPPED, original)
    with suppress(TypeError, ValueError):  # Keras asks for the arguments of a call
        counted.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    patch_instance(layer, name, counted, counters.detach)
