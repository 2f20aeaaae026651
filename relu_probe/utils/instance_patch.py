"""Patching of a method of one instance, so that nothing is left on the instance afterwards."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.RLock()
# (instance, name) -> for each patch that is in place, oldest first, the attribute that it covers: `{name: value}`, or `{}`
# if the instance had none.
_covered: dict[tuple[int, str], list[dict[str, Any]]] = {}


def patch_instance(
    instance: Any, name: str, value: Any, restorers: list[Callable[[], None]] | None = None
) -> Callable[[], None]:
    """Sets an attribute of the instance alone, and returns a function that restores exactly what was there.

    The function is added to `restorers` before anything is set, so that an interrupt cannot lose it.

    It bypasses `__setattr__`, with which Keras tracks attributes. If the instance had an attribute of that name, it must
    come back: tf_keras's `TFOpLambda` has a `call` of its own, and without it the user's ReLU would be linear.
    Patches may be removed in any order: two models, in two threads or two overlapping `watch` blocks, may share a layer.

    >>> class Layer:
    ...     def call(self): return "its own"
    >>> layer = Layer()
    >>> restore = patch_instance(layer, "call", lambda: "ours")
    >>> layer.call(), restore(), layer.call(), vars(layer)
    ('ours', None, 'its own', {})
    """
    attributes, key = vars(instance), (id(instance), name)
    with _lock:
        covered = {name: attributes[name]} if name in attributes else {}
        patches = _covered.setdefault(key, [])

    def restore() -> None:
        """May be called again, also after an interrupt at any of its lines."""
        with _lock:
            index = next((i for i, patch in enumerate(patches) if patch is covered), None)
            if index is None:
                return
            if index + 1 < len(patches):  # a newer patch is in place: it now covers what this one covered
                patches[index + 1].clear()
                patches[index + 1].update(covered)
            else:
                attributes.pop(name, None)
                attributes.update(covered)
            del patches[index]
            if not patches:
                _covered.pop(key, None)

    with _lock:
        if restorers is not None:
            restorers.append(restore)
        patches.append(covered)
        attributes[name] = value
    return restore


@contextmanager
def patched(instance: Any, name: str, value: Any) -> Iterator[None]:
    """Patches the instance for the duration of the block."""
    restore = patch_instance(instance, name, value)
    try:
        yield
    finally:
        restore()
