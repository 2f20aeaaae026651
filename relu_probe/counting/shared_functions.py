"""Functions that the layers of a model share: traced once, so that each layer adds only one call to the graph.

A large model has hundreds of ReLU layers, and each operation adds about 0.3 ms to the time of tracing a step.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

FEW_LAYERS = 8  # counted in bytes and inlined, they make the first step at most 0.2 s slower


class SharedFunctions:
    """The shared functions of one model.

    Args:
        loops: whether counting may use loops and calls that are not inlined; see `unrolls_steps` for where it may not.

    Attributes:
        many_layers: the step has so many layers that its first run would be slow if each of them were counted in the way that is
            fastest later. ResNet50 (32 x 32): small images by `kernels.places`, and no inlined calls, take 1.06 times the CPU time
            of a first step without a probe; `kernels.in_bytes` 1.27, in calls. The step of three convolutions takes 1.08 times as
            long with inlined bytes, 1.11 with `places`, 1.10 with calls.
    """

    def __init__(self, *, loops: bool = True) -> None:
        self.loops, self.many_layers = loops, False
        self._functions: dict[Any, Any] = {}
        self._lock = threading.RLock()  # replicas trace in several threads

    def call(
        self,
        body: Callable[..., Any],
        tensors: list[tf.Tensor],
        *static: Any,
        one_for_all_shapes: bool = False,
        inline: bool = True,
    ) -> Any:
        """Returns `body(*static, *tensors)`, traced once for each combination of `body`, `static`, shapes and dtypes.

        Args:
            body: a function without side effects.
            tensors: its last arguments.
            static: its first arguments, hashable.
            one_for_all_shapes: whether one trace serves tensors of every shape.
            inline: whether TensorFlow may replace each call by the operations of the function, which it then optimizes once for
                each call. That makes a step faster if it is short, and the first one slower.
        """
        specs = tuple(tf.TensorSpec(None if one_for_all_shapes else t.shape, t.dtype) for t in tensors)
        key = (body, static, specs, inline)
        with self._lock:
            if key not in self._functions:
                attributes = None if inline else {"_noinline": True}
                function = partial(body, *static)
                self._functions[key] = tf.function(
                    function if inline else partial(_without_shapes, function),
                    input_signature=specs,
                    autograph=False,
                    experimental_attributes=attributes,
                )
        return self._functions[key](*tensors)


def _without_shapes(body: Callable[..., Any], *tensors: tf.Tensor) -> Any:
    """Returns `body(*tensors)`, with the shapes of the tensors hidden from TensorFlow's shape inference.

    For each call in a graph, TensorFlow infers all shapes in the body, and evaluates what depends on known ones: 3 ms a call.
    """
    return body(*(tf.compat.v1.placeholder_with_default(each, None) for each in tensors))
