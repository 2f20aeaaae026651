"""What a layer's own settings say about its neurons: where the bias began, what pulls the weights down, which optimizer trains it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from relu_probe.structure.keras_layers import keras_class

# The size of their steps does not depend on the size of the gradients, so that clipping the gradients does not shorten a step.
_SCALE_INVARIANT = (
    *(
        "Adam",
        "AdamW",
        "Nadam",
        "Adamax",
        "RMSprop",
        "Adagrad",
        "Adadelta",
        "Adafactor",
        "Lion",
        "Lamb",
        "Ftrl",
        "Muon",
    ),
    *("ScheduleFreeAdamW", "Rprop"),
)


class OptimizerFacts(NamedTuple):
    """The optimizer of a model.

    Args:
        name: the name of its class, "" without one.
        scale_invariant: whether the size of its steps does not depend on the size of the gradients.
        learning_rate: the rate now; None if it is not known.
        schedule: the name of the class of its learning rate schedule, "" without one.
    """

    name: str = ""
    scale_invariant: bool = False
    learning_rate: float | None = None
    schedule: str = ""

    @classmethod
    def of(cls, model: Any) -> OptimizerFacts:
        """The facts about the optimizer that the model was compiled with."""
        optimizer: Any = getattr(model, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
        names = [c.__name__ for c in type(optimizer).__mro__]
        try:
            rate = float(np.asarray(optimizer.learning_rate))
        except (AttributeError, TypeError, ValueError):
            rate = None
        name = "" if optimizer is None else names[0]
        return cls(name, any(known in names for known in _SCALE_INVARIANT), rate, _schedule(optimizer))


def _schedule(optimizer: Any) -> str:
    """The name of the class of the optimizer's learning rate schedule, which its attribute `learning_rate` hides in Keras 3."""
    try:
        rate = optimizer.get_config()["learning_rate"]
    except Exception:  # no optimizer, or one of the user's without a config
        return ""
    return str(rate["class_name"]) if isinstance(rate, dict) and "class_name" in rate else ""


def initial_offset(*layers: Any) -> float | None:
    """The value at, or below, which the last bias (or beta) of the layers starts; None if its initialiser does not say.

    No initialiser is called: a user's function may do anything, and a random one may move a seed. An array that starts some
    neurons below zero and others not says nothing of them all: one that began at -9 did not fall below zero.
    """
    found = [getattr(layer, f"{name}_initializer", None) for layer in layers for name in ("bias", "beta")]
    initializer: Any = next((each for each in reversed(found) if each is not None), None)
    name = keras_class(initializer)
    config = initializer.get_config() if name else {}
    constants = {"Zeros": 0.0, "Ones": 1.0, "Constant": config.get("value"), "RandomUniform": config.get("maxval")}
    value = constants.get(name, config.get("mean") if name in ("RandomNormal", "TruncatedNormal") else None)
    if not isinstance(value, (int, float, np.ndarray, np.number, list, tuple)):
        return None
    return float(np.max(value)) if np.max(value) < 0 or np.min(value) >= 0 else None


def regularizers(*layers: Any) -> str:
    """Names the regularisers of a layer and of those behind it that may drive activity to zero; "" if there are none."""
    found = []
    for layer in layers:
        kinds = ("activity", "kernel", "bias", "gamma", "beta")
        found += [
            f"the {kind} regulariser of {layer.name}" for kind in kinds if getattr(layer, f"{kind}_regularizer", None)
        ]
        if keras_class(layer) == "ActivityRegularization":
            found.append(layer.name)
    return " and ".join(dict.fromkeys(found))
