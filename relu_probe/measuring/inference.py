"""A model's forward pass and compiled loss in inference mode, and the state that such a pass may change."""

import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from relu_probe.structure.random_state import random_states_restored
from relu_probe.structure.reachable_variables import reachable_variables
from relu_probe.utils.tensorflow_private import assigned_handles


def has_loss(model: Any) -> bool:
    """Whether `model.compute_loss` gives a loss: `compile` got one, or the class computes its own."""
    own = type(model).compute_loss is not tf.keras.Model.compute_loss
    compiled = bool(getattr(model, "loss", None))  # tf_keras has an empty dictionary where `compile` got none
    return compiled or (own and getattr(model, "optimizer", None) is not None)


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
def state_restored(model: Any, step: Any = None, own: Collection[Any] = ()) -> Iterator[None]:
    """Puts back the random states, and the variables that a pass may change: metrics, seeds, statistics, counters of calls.

    Args:
        model: the model.
        step: the concrete function that is run in the block: then the variables that it assigns to are put back, whatever holds
            them. None puts back each variable that can be reached from the model's attributes.
        own: variables of the step that are not put back.
    """
    metrics = {id(metric) for metric in model.metrics}
    before = _values_before(model) if step is None else _values_assigned(step, own)
    with random_states_restored(runs_operations=step is None):
        try:
            yield
        finally:
            for restore in before:
                restore()
            for metric in model.metrics if step is None else ():  # those that were made in the block
                if id(metric) not in metrics:
                    metric.reset_state()


def _values_before(model: Any) -> list[Callable[[], None]]:
    """Returns functions that put back the values of all variables that can be reached from the model."""

    def restoring(variable: Any) -> Callable[[], None]:
        value = tf.identity(tf.convert_to_tensor(variable))
        # Reading the assigned value is a collective of all workers: a worker with an error would wait for ever.
        without_reading = {"read_value": False} if isinstance(variable, tf.Variable) else {}
        return lambda: variable.assign(value, **without_reading)

    return [restoring(variable) for variable in reachable_variables(model)]


def _values_assigned(step: Any, own: Collection[Any]) -> list[Callable[[], None]]:
    """Returns functions that put back the values of the variables that a concrete function assigns to."""
    parts = [part for variable in own for part in getattr(variable, "values", [variable])]  # one for each replica
    ours = {id(part.handle) for part in parts if isinstance(part, tf.Variable)}

    def restoring(handle: Any, dtype: Any) -> Callable[[], None]:
        value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
        return lambda: tf.raw_ops.AssignVariableOp(resource=handle, value=value)

    return [restoring(*pair) for pair in assigned_handles(step.graph) if id(pair[0]) not in ours]
