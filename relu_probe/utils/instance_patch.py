"""How does a method of one instance get another for a while, so that nothing is left behind?"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.RLock()
_standing: dict[tuple[int, str], list[dict[str, Any]]] = {}  # of an attribute, what stood there before each of ours


def patch_instance(instance: Any, name: str, value: Any) -> Callable[[], None]:
    """Sets an attribute of the instance alone; what is returned puts back exactly what stood there.

    Past `__setattr__`, with which Keras tracks. Where the instance had an attribute of that name, it must come back:
    tf_keras' `TFOpLambda` has a `call` of its own, and without it the user's ReLU would be linear. Taken off in any order:
    two models, in two threads or two `watch` blocks that overlap, may share a layer.

    >>> class Layer:
    ...     def call(self): return "its own"
    >>> layer = Layer()
    >>> restore = patch_instance(layer, "call", lambda: "ours")
    >>> layer.call(), restore(), layer.call(), vars(layer)
    ('ours', None, 'its own', {})
    """
    own, key = vars(instance), (id(instance), name)
    with _lock:
        before = {name: own[name]} if name in own else {}
        stack = _standing.setdefault(key, [])
        stack.append(before)
        own[name] = value

    def restore() -> None:
        with _lock:
            place = next(i for i, each in enumerate(stack) if each is before)
            del stack[place]
            if place < len(stack):  # another stands on ours, and from now on what stood under it
                stack[place].clear()
                stack[place].update(before)
            else:
                own.pop(name, None)
                own.update(before)
            if not stack:
                del _standing[key]

    return restore


@contextmanager
def patched(instance: Any, name: str, value: Any) -> Iterator[None]:
    """For the time of the block."""
    restore = patch_instance(instance, name, value)
    try:
        yield
    finally:
        restore()
