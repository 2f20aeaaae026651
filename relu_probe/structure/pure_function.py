"""Functions that may be evaluated to find out what they compute: those that change nothing but the state of random generators.

A function qualifies by what its code refers to: modules of numerical libraries, numbers, and other such functions. A function that
writes to anything but its own variables, or that refers to an object (a list, a variable, a generator, a file), does not. Layers,
models and methods of the user's never qualify.
"""

import builtins
import dis
import functools
import types
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.structure.keras_layers import held_function, is_activation_layer, is_defined_by_keras

_LIBRARIES = ("keras", "tf_keras", "tensorflow", "numpy", "math", "cmath", "operator", "functools", "random")
_BUILTINS = (
    *(
        [
            "abs",
            "all",
            "any",
            "bool",
            "complex",
            "divmod",
            "enumerate",
            "float",
            "int",
            "isinstance",
            "len",
            "list",
            "map",
            "max",
            "min",
            "pow",
            "print",
            "range",
        ]
    ),
    *(["repr", "reversed", "round", "slice", "sorted", "str", "sum", "tuple", "zip"]),
)
_VALUES = (int, float, complex, str, bytes, type(None), tf.DType, np.dtype, np.generic)
_WRITES = ("STORE_GLOBAL", "STORE_ATTR", "STORE_SUBSCR", "DELETE_GLOBAL", "DELETE_ATTR", "DELETE_SUBSCR", "YIELD_VALUE")


class PureFunction(NamedTuple):
    """A function that may be evaluated.

    Args:
        key: equal for functions that compute the same: of the same code, and bound to the same values.
        call: the function.
    """

    key: Hashable
    call: Callable[..., Any]


class _NotPureError(Exception):
    """The function may have effects."""


def as_pure_function(function: Any) -> PureFunction | None:
    """Returns the function, or what an activation layer of Keras computes, as one that may be evaluated; None if it may not."""
    try:
        return _pure(function, ())
    except _NotPureError:
        return None


def _pure(function: Any, outer: tuple[Any, ...]) -> PureFunction:
    if any(function is each for each in outer) or len(outer) > 8:
        raise _NotPureError  # recursive
    outer = (*outer, function)
    if hasattr(type(function), "python_function") and type(function).__module__.startswith("tensorflow."):
        return _pure(function.python_function, outer)  # a `tf.function`: nothing is added to its traces
    if isinstance(function, functools.partial):
        inner = _pure(function.func, outer)
        bound = tuple(_value(each, outer) for each in (*function.args, *function.keywords, *function.keywords.values()))
        return PureFunction((inner.key, bound), functools.partial(inner.call, *function.args, **function.keywords))
    if hasattr(type(function), "call") and is_defined_by_keras(type(function).call):
        return _of_keras(function, outer)
    if isinstance(function, types.FunctionType) and not _is_library_function(function):
        return PureFunction(_key_of_code(function, outer), function)
    if isinstance(function, (types.FunctionType, types.BuiltinFunctionType, np.ufunc)) and _from_library(function):
        return PureFunction(function, function)
    raise _NotPureError


def _of_keras(layer: Any, outer: tuple[Any, ...]) -> PureFunction:
    """An activation layer, or an operation of a functional graph, whose `call` is Keras's own."""
    if not is_activation_layer(layer) or getattr(layer, "variables", None) or type(layer).__name__ == "PReLU":
        raise _NotPureError
    if (held := held_function(layer)) is not None:
        return _pure(held, outer)
    settings = {name: value for name, value in vars(layer).items() if name[0] != "_" and name not in ("name", "built")}
    shown = {name: str(value) for name, value in settings.items() if isinstance(value, (*_VALUES, np.ndarray))}
    return PureFunction((type(layer).call, tuple(sorted(shown.items()))), layer.call)


def _key_of_code(function: types.FunctionType, outer: tuple[Any, ...]) -> Hashable:
    code = function.__code__
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
    bound = {name: _value(value, outer) for name, value in _closure(function).items()}
    for name in _globals_read(code):
        if name in function.__globals__:
            bound[name] = _value(function.__globals__[name], outer)
        elif name not in _BUILTINS or not hasattr(builtins, name):
            raise _NotPureError
    return (
        code,
        tuple(_value(each, outer) for each in defaults),
        tuple(sorted(bound.items(), key=lambda pair: pair[0])),
    )


def _globals_read(code: types.CodeType) -> Iterator[str]:
    """The global names that a function reads. Raises _NotPureError if it writes to what is not its own."""
    for step in dis.get_instructions(code):
        foreign = step.opname == "IMPORT_NAME" and step.argval.partition(".")[0] not in _LIBRARIES
        shared = step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars
        if foreign or shared or step.opname in _WRITES:
            raise _NotPureError
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _globals_read(inner)


def _value(value: Any, outer: tuple[Any, ...]) -> Hashable:
    """What stands for a value in a key. Raises _NotPureError for an object that may have a state."""
    if isinstance(value, _VALUES):
        return (type(value), value)
    if isinstance(value, tuple):
        return tuple(_value(each, outer) for each in value)
    if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] in _LIBRARIES:
        return value.__name__
    if isinstance(value, type) and _from_library(value):
        return value
    if isinstance(value, (np.ndarray, tf.Tensor)) and not hasattr(value, "graph") and np.size(value) <= 16:
        return (type(value), str(value.dtype), np.shape(value), np.asarray(value).tobytes())
    return _pure(value, outer).key


def _from_library(definition: Any) -> bool:
    return str(getattr(definition, "__module__", "")).partition(".")[0] in _LIBRARIES or isinstance(
        definition, np.ufunc
    )


def _is_library_function(function: types.FunctionType) -> bool:
    """Whether a library defines it. If a library has wrapped a function of the user's, the closure holds that function."""
    return _from_library(function) and all(
        _from_library(value) for value in _closure(function).values() if isinstance(value, types.FunctionType)
    )


def _closure(function: types.FunctionType) -> dict[str, Any]:
    """The variables of the enclosing functions. Raises _NotPureError if one of them is not assigned yet."""
    try:
        return {n: cell.cell_contents for n, cell in zip(function.__code__.co_freevars, function.__closure__ or ())}
    except ValueError:
        raise _NotPureError from None
