"""Compilation of a smaller copy of a model as the model is compiled, with the optimizer's state carried over."""

import inspect
from typing import Any

import tensorflow as tf

from relu_probe.cure.cuts import Cuts
from relu_probe.cure.edit import value_of
from relu_probe.cure.optimizer_slots import find_slots
from relu_probe.structure.run_settings import compile_arguments, optimizer_parts
from relu_probe.utils.error_policy import reason
from relu_probe.utils.foreign_text import shown


def compile_like(new: Any, model: Any, cuts: Cuts) -> str:
    """Compiles the copy as the model is compiled, with new metrics and a new optimizer that continues from the same state.

    Returns:
        Why the optimizer's state was not carried over, "" if it was.

    Raises:
        ValueError: the optimizer or a metric cannot be made again from its configuration.
    """
    arguments = compile_arguments(model)
    if arguments is None:
        return ""
    arguments = {key: tf.nest.map_structure(_fresh_metric, value) for key, value in arguments.items()}
    arguments["optimizer"] = None if model.optimizer is None else _again(model.optimizer)
    if "auto_scale_loss" in inspect.signature(new.compile).parameters:
        arguments["auto_scale_loss"] = False  # the optimizer scales the loss already, if it has to
    new.compile(**arguments)
    if bool(new.run_eagerly) != bool(model.run_eagerly):
        new.run_eagerly = model.run_eagerly  # it was set after `compile`
    return "" if model.optimizer is None else _carry_state(new, model, cuts)


def _carry_state(new: Any, model: Any, cuts: Cuts) -> str:
    old = model.optimizer
    if len(old.variables) > len(new.optimizer.variables):
        new.optimizer.build(new.trainable_variables)
    try:
        slots = {id(slot.variable): slot for slot in find_slots(model)}
    except ValueError as error:
        return str(error)
    for before, after in zip(old.variables, new.optimizer.variables, strict=True):
        value, slot = value_of(before), slots.get(id(before))
        if slot is not None:
            cut = cuts.of(slot.weight)
            value = cut.changed(value) if slot.is_average else cut.stays(value)
        after.assign(value)
    listed = {id(variable) for variable in old.variables}
    for name, variable in vars(old).items():  # the product of all momenta, in the Nadam of tf_keras
        if isinstance(variable, tf.Variable) and id(variable) not in listed:
            getattr(new.optimizer, name).assign(variable)
    return ""


def _fresh_metric(value: Any) -> Any:
    return _again(value) if isinstance(value, tf.keras.metrics.Metric) else value


def _again(value: Any) -> Any:
    """Another object with the same configuration."""
    try:
        with tf.keras.utils.custom_object_scope({type(part).__name__: type(part) for part in optimizer_parts(value)}):
            return type(value).from_config(value.get_config())
    except Exception as error:
        raise ValueError(
            f"{type(value).__name__} cannot be made again from its configuration: {shown(reason(error), 200)}; expected one "
            "that can, as a saved model needs it. Pass a model that is not compiled."
        ) from error
