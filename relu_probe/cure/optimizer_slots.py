"""The optimizer's slots of weights: which variable belongs to which weight, and what it was at first.

A *slot* is a variable of the weight's shape that an optimizer keeps, such as a momentum. Which slots there are, and their
initial values, are known only to the optimizer's class. So a twin is built from the configuration over the same weights: its
variables are those of the optimizer, in the same order, and it records for which weight each was made.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from relu_probe.cure.edit import Edit, value_of
from relu_probe.structure.keras_layers import keras_class

_KEYWORDS = ("reference_variable", "model_variable", "name", "variable_name")
_Made = tuple[
    Any, Any, bool
]  # a weight, the variable of a twin that was made for it, and whether that is its moving average


class Slot(NamedTuple):
    """One slot of one weight.

    Args:
        weight: the weight.
        variable: the optimizer's variable.
        twin: the twin's variable, which has the initial value.
        is_average: whether the slot is the exponential moving average of the weight (`use_ema`).
    """

    weight: Any
    variable: Any
    twin: Any
    is_average: bool


def check_optimizer(model: Any) -> None:
    """Checks that the slots of the model's optimizer can be found, before it has any.

    Raises:
        ValueError: they cannot. The message names the optimizer.
    """
    if (optimizer := _innermost(getattr(model, "optimizer", None))) is not None:
        with model.distribute_strategy.scope():
            _twin(optimizer, model.trainable_variables)


def reset_slots(edit: Edit, model: Any) -> None:
    """Gives the slots of all touched elements of weights their initial values, and moving averages the new weights.

    Raises:
        ValueError: the slots of the optimizer are not known.
    """
    touched = {id(variable): mask for variable, mask in edit.touched()}
    for slot in find_slots(model) if touched else ():
        if (mask := touched.get(id(slot.weight))) is not None:
            edit.write(slot.variable, mask, value_of(slot.weight if slot.is_average else slot.twin))


def find_slots(model: Any) -> list[Slot]:
    """All slots of the model's optimizer; none before its first step.

    Raises:
        ValueError: they cannot be found.
    """
    optimizer = _innermost(getattr(model, "optimizer", None))
    if optimizer is None or not _is_built(optimizer):
        return []
    with model.distribute_strategy.scope():
        twin, made = _twin(optimizer, model.trainable_variables)
    own = dict(zip((id(variable) for variable in twin.variables), optimizer.variables))
    slots = [Slot(weight, own.get(id(variable)), variable, average) for weight, variable, average in made]
    if len(twin.variables) != len(optimizer.variables) or not all(_fits(slot) for slot in slots):
        raise ValueError(
            f"the optimizer {optimizer.name!r} was built for other weights than the {len(model.trainable_variables)} that "
            "the model trains now; expected the same. Compile the model again after layers were frozen or added."
        )
    return slots


def _fits(slot: Slot) -> bool:
    """Whether the optimizer's variable has the name and shape of the twin's; in tf_keras names begin with the optimizer's."""
    if slot.variable is None:
        return False
    same_name = str(slot.variable.name).endswith(str(slot.twin.name))
    return same_name and tuple(slot.variable.shape) == tuple(slot.twin.shape)


def _innermost(optimizer: Any) -> Any:
    """The optimizer that has the slots: that inside a LossScaleOptimizer."""
    while (inner := getattr(optimizer, "inner_optimizer", None)) is not None:
        optimizer = inner
    return optimizer


def _is_built(optimizer: Any) -> bool:
    """Whether it has its slots. tf_keras does not say; there an optimizer without slots has scalars only."""
    built = getattr(optimizer, "built", None)
    return built if isinstance(built, bool) else any(len(v.shape) for v in optimizer.variables)


def _twin(optimizer: Any, weights: list[Any]) -> tuple[Any, list[_Made]]:
    """A new optimizer with the same configuration, built for the weights, and what it made for each of them."""
    made: list[_Made] = []
    loop = _Loop(weights)
    if not hasattr(type(optimizer), "add_variable_from_reference"):
        raise _unknown(optimizer)
    config = optimizer.get_config()
    if isinstance(config.get("learning_rate"), dict):  # a schedule, which Keras may not be able to make again
        config["learning_rate"] = tf.keras.optimizers.schedules.ExponentialDecay(0.1, 1, 1.0)
    try:
        twin = _recording(type(optimizer), loop, made).from_config(config)
        twin.build(loop)
    except Exception as error:
        raise _unknown(optimizer) from error
    known = {id(variable) for weight, variable, _ in made if tuple(variable.shape) == tuple(weight.shape)}
    if any(len(v.shape) and id(v) not in known for v in twin.variables):
        raise _unknown(optimizer)
    return twin, made


def _recording(kind: Any, loop: "_Loop", made: list[_Made]) -> Any:
    """A subclass of an optimizer's class that adds to `made` what it makes for the weights of the loop."""

    def add_variable(self: Any, *args: Any, **keywords: Any) -> Any:
        variable = super(recording, self).add_variable(*args, **keywords)
        if loop.weight is not None:  # Adagrad and Ftrl of Keras 3.3 do not say for which weight it is
            made.append((loop.weight, variable, False))
        return variable

    def add_variable_from_reference(self: Any, *args: Any, **keywords: Any) -> Any:
        variable = super(recording, self).add_variable_from_reference(*args, **keywords)
        # The weight comes first, then the name of the slot; Keras 3 and tf_keras have other keywords for them.
        weight, name, *_ = [*args, *(keywords[key] for key in _KEYWORDS if key in keywords), None]
        made[:] = [each for each in made if each[1] is not variable]  # it calls `add_variable`
        made.append((weight, variable, name == "average" and bool(self.use_ema)))
        return variable

    own = {"add_variable": add_variable, "add_variable_from_reference": add_variable_from_reference}
    recording: Any = type(kind.__name__, (kind,), own)
    return recording


class _Loop(list[Any]):
    """Weights, and the one that a loop over them has reached: the weight for which an optimizer makes a variable there."""

    weight: Any = None

    def __iter__(self) -> Iterator[Any]:
        for self.weight in super().__iter__():
            yield self.weight
        self.weight = None


def _unknown(optimizer: Any) -> ValueError:
    kind = keras_class(optimizer) or type(optimizer).__name__
    return ValueError(
        f"the optimizer {kind} keeps state of which it is not known to which weight each value belongs; expected an "
        "optimizer with slots of the weights' shapes, made from its configuration, such as Adam or SGD. Use one of those."
    )
