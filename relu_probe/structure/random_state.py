"""The state of the global random generators, put back after a block, so that a training draws the numbers it would have drawn."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.utils.tensorflow_private import eager_seeds_restored


@contextmanager
def random_states_restored(*, runs_operations: bool = False) -> Iterator[None]:
    """Puts back the global generators of Python, NumPy, TensorFlow and Keras; `runs_operations` as in `eager_seeds_restored`."""
    python, numpy, restore_keras = random.getstate(), np.random.get_state(), _keras_generator()
    try:
        with eager_seeds_restored(runs_operations=runs_operations):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        restore_keras()


def _keras_generator() -> Callable[[], None]:
    """Returns a function that puts back Keras's global generator.

    Keras 3 makes it, a variable, when it is first used, with a seed drawn from Python's. tf_keras has one of Python's.
    """
    if not hasattr(tf.keras, "ops"):
        from tf_keras.src.backend import _SEED_GENERATOR

        generator: random.Random | None = getattr(_SEED_GENERATOR, "generator", None)
        before = None if generator is None else generator.getstate()
        return lambda: None if generator is None else generator.setstate(before)  # type: ignore[arg-type]
    from keras.src.backend.common import global_state

    name = "global_seed_generator"
    found: Any = global_state.get_global_attribute(name)
    value = None if found is None else np.array(found.state)

    def restore() -> None:
        global_state.set_global_attribute(name, found)
        if found is not None and (np.array(found.state) != value).any():
            found.state.assign(value)

    return restore
