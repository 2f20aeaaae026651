"""Checks that a model can be run on given data, and what is said if it cannot."""

from typing import Any

import tensorflow as tf

from relu_probe.structure.keras_layers import parts_of_uncallable, symbolic_inputs
from relu_probe.utils.error_policy import reason
from relu_probe.utils.foreign_text import shown


def check_built(model: Any) -> None:
    """Raises ValueError if the model cannot be called: it has no weights yet, or no `call` of its own."""
    if parts := parts_of_uncallable(model):
        raise ValueError(
            f"model {model.name!r} has no call of its own, so it cannot be run on data; expected a model that can. Measure or "
            f"diagnose its parts, {' and '.join(f'{model.name}.{part}' for part in parts)}, each with data of its own."
        )
    if not model.built:
        raise ValueError(
            f"model {shown(repr(model.name))} is unbuilt: it has no weights yet, so nothing can be measured. Call it on a batch, or "
            "model.build(input_shape), or begin it with keras.Input."
        )


def check_real(model: Any, dataset: Any) -> None:
    """Raises ValueError for complex data if the model has no complex input: Keras would drop the imaginary part."""
    complex_inputs = any("complex" in str(each.dtype) for each in symbolic_inputs(model))
    if any(spec.dtype.is_complex for spec in tf.nest.flatten(dataset.element_spec)) and not complex_inputs:
        raise ValueError(
            "data is complex, and Keras would drop its imaginary part; expected real numbers. Pass "
            "np.stack([x.real, x.imag], axis=-1) or np.abs(x), or give the model a keras.Input(dtype='complex64')."
        )


def mismatch(model: Any, dataset: Any, error: Exception) -> str:
    """Says that the model cannot be run on the data, after an error of its first step."""
    shapes = tf.nest.map_structure(lambda s: tuple(s.shape), dataset.element_spec)
    expected = getattr(model, "input_shape", None) or "the shape it was built for"
    return (
        f"the model cannot be run on the data: found batches of shape {shapes} (x first), expected x of {expected}, "
        f"batched, with labels that fit the loss. Reshape or batch the data. Keras says: {reason(error)[:500]}"
    )
