"""The size of the weights' updates, which dates a jump where a training step returns no loss."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from relu_probe.utils.weak_id_dict import WeakIdDict

# An update that is far too large shows in every layer: a sample of the weights tells of it, and costs little.
MOST_VARIABLES, MOST_ENTRIES = 32, 256

_samplers = WeakIdDict()  # model -> a function that returns a sample of its weights; a traced one is made once a model


class UpdateSize:
    """Measures how far the weights of a model moved in each training step."""

    def __init__(self) -> None:
        self._before: tf.Tensor | None = None

    def take(self, model: Any) -> tf.Tensor | None:
        """The norm of what a sample of the weights has moved by since the last call; None at the first."""
        sampler = _samplers.get(model)
        if sampler is None:
            sampler = _samplers[model] = _sampler(model.trainable_variables)
        before, self._before = self._before, sampler()
        return None if before is None else tf.norm(self._before - before)


def _sampler(variables: list[Any]) -> Callable[[], tf.Tensor]:
    """A function that returns, as one vector, evenly spread entries of evenly spread variables."""
    chosen = variables[:: 1 + len(variables) // MOST_VARIABLES]
    strides = [1 + int(tf.size(variable)) // MOST_ENTRIES for variable in chosen]

    @tf.function(autograph=False)
    def sample() -> tf.Tensor:
        parts = [tf.reshape(variable, [-1])[::stride] for variable, stride in zip(chosen, strides)]
        return tf.concat([tf.cast(part, tf.float32) for part in parts] or [tf.zeros(1)], 0)

    return sample
