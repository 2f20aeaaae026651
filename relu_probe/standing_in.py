"""How does a method of one instance get another for a while, so that nothing is left behind?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def put(instance: Any, name: str, value: Any) -> Callable[[], None]:
    """Sets an attribute of the instance alone; what is returned puts back exactly what stood there.

    Past `__setattr__`, with which Keras tracks. Where the instance had an attribute of that name, it must come back:
    tf_keras' `TFOpLambda` has a `call` of its own, and without it the user's ReLU would be linear.

    >>> class Layer:
    ...     def call(self): return "its own"
    >>> layer = Layer()
    >>> restore = put(layer, "call", lambda: "ours")
    >>> layer.call(), restore(), layer.call(), vars(layer)
    ('ours', None, 'its own', {})
    """
    own = vars(instance)
    had, before = name in own, own.get(name)
    own[name] = value

    def restore() -> None:
        if had:
            own[name] = before
        else:
            own.pop(name, None)

    return restore


@contextmanager
def standing_in(instance: Any, name: str, value: Any) -> Iterator[None]:
    """For the time of the block."""
    restore = put(instance, name, value)
    try:
        yield
    finally:
        restore()
