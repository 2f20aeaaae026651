"""Checks that a model, its backend and its distribution strategy are supported."""

from typing import Any

import tensorflow as tf

from relu_probe.utils.foreign_text import shown

_UNSUPPORTED_STRATEGIES = ("TPUStrategy", "ParameterServerStrategy")


def check_model(model: Any) -> None:
    """Checks the model before anything else is done with it.

    Raises:
        TypeError: it is no Keras model, or a model of the other Keras.
        ValueError: its backend or its strategy is not supported.
    """
    if not isinstance(model, tf.keras.Model):
        raise TypeError(_not_a_model(model))
    backend = tf.keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"Keras runs on the {backend!r} backend; expected 'tensorflow'. Set KERAS_BACKEND=tensorflow before Keras is "
            "imported."
        )
    names = {c.__name__.rstrip("V12") for c in type(model.distribute_strategy).__mro__}
    for name in _UNSUPPORTED_STRATEGIES:
        if name in names or f"{name}Extended" in names:
            raise ValueError(
                f"the model was made under {name}, on which the counts would be wrong; expected MirroredStrategy, "
                "MultiWorkerMirroredStrategy, OneDeviceStrategy or none. Measure a copy of the model outside of it."
            )


def is_tf_keras(model: Any) -> bool:
    """Whether a model, or a class it inherits from, is defined in tf_keras."""
    return _inherits_from(model, "tf_keras")


def _inherits_from(model: Any, library: str) -> bool:
    return any(c.__module__.startswith(f"{library}.") for c in type(model).__mro__)


def _not_a_model(model: Any) -> str:
    if isinstance(model, tf.keras.layers.Layer):
        return f"found the layer {shown(repr(model.name))} ({type(model).__name__}); expected a Keras model. Make one around it."
    if is_tf_keras(model):
        return (
            f"{type(model).__name__} is a tf_keras model, and tf.keras is Keras 3 in this process; set the environment "
            "variable TF_USE_LEGACY_KERAS=1 before TensorFlow is imported."
        )
    if _inherits_from(model, "keras"):
        return (
            f"{type(model).__name__} is a Keras 3 model, and tf.keras is tf_keras in this process; unset the "
            "environment variable TF_USE_LEGACY_KERAS, or build the model with tf.keras."
        )
    return f"found {model!r:.60} ({type(model).__name__}); expected a Keras model, tf.keras.Model."
