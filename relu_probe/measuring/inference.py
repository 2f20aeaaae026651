"""A model's forward pass and compiled loss in inference mode, and the state that such a pass may change."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from relu_probe.structure.keras_layers import variables_changed_by_inference


def has_loss(model: Any) -> bool:
    """Whether `model.compute_loss` gives a loss: `compile` got one, or the class computes its own."""
    own = type(model).compute_loss is not tf.keras.Model.compute_loss
    return getattr(model, "loss", None) is not None or (own and getattr(model, "optimizer", None) is not None)


def call_in_inference(model: Any, x: Any) -> Any:
    """The model's outputs on `x`, with `training=False` if its `call` takes that argument."""
    subclassed = type(model).call is not tf.keras.Model.call
    takes_training = not subclassed or "training" in inspect.signature(model.call).parameters
    return model(x, training=False) if takes_training else model(x)


def scaled_loss(model: Any, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """The scalar loss as `fit` computes it, with the optimizer's loss scale: float16 gradients underflow without it."""
    keywords = inspect.signature(model.compute_loss).parameters  # Keras 3.3 has no `training`
    training = {"training": False} if "training" in keywords else {}
    y_pred = call_in_inference(model, x)
    loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **training)
    optimizer = model.optimizer
    scale = getattr(optimizer, "scale_loss", None) or getattr(optimizer, "get_scaled_loss", None)
    return scale(loss) if scale else loss


@contextmanager
def state_restored(model: Any) -> Iterator[None]:
    """Restores metrics, seed states and the other variables that a pass in inference mode may change.

    `compute_loss` updates metric trackers; some layers update their seed states or counters. Metrics that are made inside
    the block are reset.
    """
    variables = [*(v for metric in model.metrics for v in metric.variables), *variables_changed_by_inference(model)]
    before = [(v, tf.identity(tf.convert_to_tensor(v))) for v in variables]
    try:
        yield
    finally:
        for variable, value in before:
            # Reading the assigned value is a collective of all workers: a worker with an error would wait for ever.
            variable.assign(value, **({"read_value": False} if isinstance(variable, tf.Variable) else {}))
        known = {id(v) for v in variables}
        for metric in model.metrics:
            if any(id(v) not in known for v in metric.variables):
                metric.reset_state()
