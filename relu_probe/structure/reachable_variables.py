"""All variables that a model may change when it runs eagerly: those reachable from its attributes, whatever holds them."""

import types
from typing import Any

import tensorflow as tf

_LEAVES = (str, bytes, int, float, complex, type, types.ModuleType, tf.Tensor, tf.keras.optimizers.Optimizer)


def reachable_variables(model: Any) -> list[Any]:
    """Returns the variables in the attributes of the model and of the objects in them: layers, modules, lists, dicts, functions.

    No property is read. An optimizer's variables, which a forward pass does not change, are left out.
    """
    seen: set[int] = set()
    found: list[Any] = []
    todo: list[Any] = [model]
    while todo:
        each = todo.pop()
        if id(each) in seen or each is None or isinstance(each, _LEAVES):
            continue
        seen.add(id(each))
        if isinstance(each, tf.Variable) or (hasattr(tf.keras, "ops") and isinstance(each, tf.keras.Variable)):
            found.append(each)
        else:
            todo += _parts(each)
    return found


def _parts(each: Any) -> list[Any]:
    if isinstance(each, dict):
        return [*each.keys(), *each.values(), *_attributes(each)]
    if isinstance(each, (list, tuple, set, frozenset)):
        return [*each, *_attributes(each)]
    if isinstance(each, types.MethodType):
        return [each.__self__, each.__func__]
    if isinstance(each, types.FunctionType):
        cells = [cell for cell in each.__closure__ or () if cell != types.CellType()]
        return [*(cell.cell_contents for cell in cells), *(each.__defaults__ or ())]
    known = type(each).__module__.startswith("tensorflow.") and not isinstance(each, tf.Module)
    return [] if known else _attributes(each)


def _attributes(each: Any) -> list[Any]:
    try:
        return list(vars(each).values())
    except TypeError:
        return []
