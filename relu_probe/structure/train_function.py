"""Keras's train function: how one with another training step is built, and what it hides.

`model.train_function` runs one or more training steps on an iterator. It is a `tf.function`, which tf_keras also keeps as
`train_tf_function`; in Keras 3.15 it is a Python function around one.
"""

from collections.abc import Callable
from typing import Any

from relu_probe.utils.instance_patch import patched

_ATTRIBUTES = ("train_function", "train_tf_function")  # the second is tf_keras's


def build_train_function(model: Any, train_step: Callable[..., Any]) -> Any:
    """Returns a new train function of the model, made by Keras around `train_step`. The model keeps the one it has.

    Keras 3.3 and tf_keras look `model.train_step` up each time they trace: set it while the function is called too.
    """
    own = model.__dict__
    before = {name: own[name] for name in _ATTRIBUTES if name in own}
    try:
        with patched(model, "train_step", train_step):
            own["train_function"] = None  # an overridden make_train_function may not take `force`
            model.make_train_function()
        return model.train_function
    finally:
        own.update(before)


def tf_functions(train_function: Any) -> list[Any]:
    """Returns the `tf.function`s in a train function: it is one itself, or its closure holds one (Keras 3.15)."""
    cells = [cell.cell_contents for cell in getattr(train_function, "__closure__", None) or ()]
    return [f for f in [train_function, *cells] if hasattr(f, "experimental_get_tracing_count")]


def trained_variables(optimizer: Any) -> list[Any]:
    """Returns the variables that Keras 3's optimizer updates, fixed when it was first applied; [] for tf_keras."""
    return list(getattr(optimizer, "_trainable_variables", []))
