"""A copy of a model in which layers have fewer units, with the weights carried over."""

import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.cure.cuts import Cuts
from relu_probe.cure.plan import tied_weights
from relu_probe.measuring.inference import call_in_inference
from relu_probe.structure.keras_layers import (
    held_function,
    holds_all_calls,
    is_defined_by_keras,
    keras_class,
    visible_layers,
)
from relu_probe.structure.support import is_tf_keras
from relu_probe.utils.error_policy import reason
from relu_probe.utils.foreign_text import shown, shown_names
from relu_probe.utils.instance_patch import patched

# The ends of the names of a layer's arguments that are functions, or objects with a configuration of their own.
_PARTS = ("activation", "_initializer", "_regularizer", "_constraint")
_LOOKUPS = ("StringLookup", "IntegerLookup", "TextVectorization")
_UNITS = {"Dense": "units", "EinsumDense": "output_shape"}


def smaller_model(model: Any, cuts: Cuts, x: Any) -> Any:
    """A new model without the units that are cut out. The model itself is not touched.

    Args:
        model: a functional or Sequential model.
        cuts: of its variables.
        x: inputs, on which a model is built that has no input shape.

    Raises:
        ValueError: a layer cannot be made again from its configuration.
    """
    copies: dict[int, tuple[Any, Any]] = {}  # by id of the layer: the layer and its copy

    def copy(layer: Any) -> Any:
        if id(layer) not in copies:
            copies[id(layer)] = layer, _clone(layer, copy) if holds_all_calls(layer) else _layer(layer, cuts)
        return copies[id(layer)][1]

    new = _clone(model, copy)
    if type(new) is not type(model):
        raise ValueError(
            f"the model is a {shown(type(model).__name__)}, a class of your own, of which no smaller one can be made; expected a "
            "plain functional or Sequential model. Shrink keras.Model(model.inputs, model.outputs)."
        )
    call_in_inference(new, x)
    _check_sharing(model, new)
    for layer, made in [(model, new), *reversed(copies.values())]:  # models before their layers
        if getattr(layer, "trainable", None) != getattr(made, "trainable", None):
            made.trainable = layer.trainable
        if not holds_all_calls(layer):
            _carry_weights(layer, made, cuts)
    return new


def _check_sharing(model: Any, copy: Any) -> None:
    """Raises ValueError if layers share a weight: made again from their configurations, each has one of its own."""
    if len(model.weights) != len(copy.weights) and (tied := tied_weights(model)):
        names = [
            layer.name
            for layer, _ in visible_layers(model)
            if any(id(w) in tied for w in getattr(layer, "weights", []))
        ]
        raise ValueError(
            f"layers {shown_names(names)} share a weight, and made again from their configurations they do not; expected layers "
            "with weights of their own. Call one layer several times, or give each layer its own weight."
        )


def _clone(model: Any, copy: Any) -> Any:
    """The functional or Sequential model, made of copies of its layers, not compiled."""
    # Keras 3 would compile a Sequential copy from a serialised form, which fails for losses of the user's.
    with patched(model, "get_compile_config", dict):
        return tf.keras.models.clone_model(model, input_tensors=_inputs(model), clone_function=copy)


def _inputs(model: Any) -> Any:
    """New inputs for a copy of a functional model; None where Keras makes them itself, with their names."""
    if is_tf_keras(model) or isinstance(model, tf.keras.Sequential):
        return None
    layers = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.InputLayer)]
    copies = {id(layer.output): type(layer).from_config(layer.get_config()).output for layer in layers}
    return tf.nest.map_structure(lambda tensor: copies[id(tensor)], model.input)


def _layer(layer: Any, cuts: Cuts) -> Any:
    """A copy of a layer, or of an operation of a functional graph, with as many units as are left."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that functions cannot be saved: nothing is saved here
            config = layer.get_config()
        config.update(_own_parts(layer, config))
        if keras_class(layer) == "Lambda":
            return type(layer)(held_function(layer), name=layer.name, dtype=config["dtype"])
        if (units := cuts.units(layer)) is not None and units[0] != units[1]:
            config.update(_resized(layer, config, units[1]))
        if any(cuts.resizes(weight) for weight in getattr(layer, "weights", [])):
            config.update({key: "zeros" for key, value in config.items() if _fits_one_shape(key, value)})
        return _with_vocabulary(type(layer).from_config(config), layer)
    except Exception as error:
        raise ValueError(
            f"layer {shown(layer.name)} ({type(layer).__name__}) cannot be made again from its configuration: "
            f"{shown(reason(error), 200)}; expected a layer with get_config and from_config, as a saved model needs them."
        ) from error


def _with_vocabulary(copy: Any, layer: Any) -> Any:
    """The copy with the words or numbers to which a lookup was adapted, which its configuration lacks."""
    if keras_class(layer) in _LOOKUPS and layer.get_vocabulary() != copy.get_vocabulary():
        kept: dict[str, Any] = {}
        layer.save_own_variables(kept)
        copy.set_vocabulary(layer.get_vocabulary(), kept.get("idf_weights"))
    return copy


def _carry_weights(layer: Any, copy: Any, cuts: Cuts) -> None:
    """Gives a copy what stays of the weights of a layer, and the states of a stateful RNN.

    Raises:
        ValueError: the copy has other weights.
    """
    for old, weight in _paired(layer, copy):
        value = cuts.value(old)
        if not tf.TensorShape(weight.shape).is_compatible_with(value.shape):
            raise ValueError(_other_weights(layer, copy))
        weight.assign(value)
    states = [tf.nest.flatten(getattr(each, "states", [])) for each in (layer, copy)]
    for old, state in zip(*states) if getattr(layer, "stateful", False) else ():
        state.assign(old)
    if keras_class(layer) in ("Normalization", "Discretization") and layer.weights:
        copy.finalize_state()  # it computes with what it made of its weights


def _paired(layer: Any, copy: Any) -> list[tuple[Any, Any]]:
    """The weights of a layer and of its copy: by name if that tells them apart: a layer may get some after it was built."""
    if keras_class(layer) in _LOOKUPS:  # in tf_keras the vocabulary counts as a variable
        return []
    both = [getattr(each, "weights", []) for each in (layer, copy)]
    if len(both[0]) != len(both[1]):
        raise ValueError(_other_weights(layer, copy))
    old, new = ({weight.name: weight for weight in weights} for weights in both)
    by_name = len(old) == len(both[0]) and old.keys() == new.keys()
    return [(old[name], new[name]) for name in old] if by_name else list(zip(*both))


def _other_weights(layer: Any, copy: Any) -> str:
    shapes = [[tuple(weight.shape) for weight in each.weights] for each in (layer, copy)]
    return (
        f"layer {shown(layer.name)} ({type(layer).__name__}) has weights of the shapes {shapes[0]}, and made again from its "
        f"configuration {shapes[1]}; expected as many, of the same shapes or smaller. Save the model, load it and shrink that one."
    )


def _resized(layer: Any, config: dict[str, Any], units: int) -> dict[str, Any]:
    key = _UNITS.get(keras_class(layer), "filters")
    shape = config[key]
    return {key: (*shape[:-1], units) if isinstance(shape, (list, tuple)) else units}


def _own_parts(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The functions and objects of the user's own in a layer, which stay as they are: they need not be registered."""
    parts = {key: getattr(layer, key, None) for key in config if key.endswith(_PARTS)}
    own = {key: part for key, part in parts.items() if callable(part) and not is_defined_by_keras(type(part))}
    return {key: part for key, part in own.items() if not isinstance(part, tf.keras.layers.Layer)}


def _fits_one_shape(key: str, value: Any) -> bool:
    """Whether this may be an initialiser of one shape only, such as Constant([0.0, 1.0]) or one of the user's own."""
    if not key.endswith("_initializer"):
        return False
    config = value.get("config") if isinstance(value, dict) else None
    values = config.values() if isinstance(config, dict) else []
    return callable(value) or any(isinstance(each, (dict, list, tuple)) or np.ndim(each) > 0 for each in values)
