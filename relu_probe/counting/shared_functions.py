"""Functions that the layers of a model share: traced once, so that each layer adds only one call to the graph.

A large model has hundreds of ReLU layers, and each operation adds about 0.3 ms to the time of tracing a step.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf


class SharedFunctions:
    """The shared functions of one model."""

    def __init__(self) -> None:
        self._functions: dict[Any, Any] = {}
        self._lock = threading.RLock()  # replicas trace in several threads

    def call(
        self, body: Callable[..., Any], tensors: list[tf.Tensor], *static: Any, one_for_all_shapes: bool = False
    ) -> Any:
        """Returns `body(*static, *tensors)`, traced once for each combination of `body`, `static`, shapes and dtypes.

        Args:
            body: a function without side effects.
            tensors: its last arguments.
            static: its first arguments, hashable.
            one_for_all_shapes: whether one trace serves tensors of every shape; scalars stay scalars.
        """
        specs = tuple(tf.TensorSpec(None if one_for_all_shapes and t.shape.rank else t.shape, t.dtype) for t in tensors)
        key = (body, static, specs)
        with self._lock:
            if key not in self._functions:
                function = partial(body, *static)
                self._functions[key] = tf.function(function, input_signature=specs, autograph=False)
        return self._functions[key](*tensors)
