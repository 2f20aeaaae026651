"""What does `relu-probe check` look at? A model file, loaded safely, and data. TensorFlow is imported late."""

import os
import re
import sys
from importlib import import_module
from textwrap import shorten
from typing import Any

from relu_probe.cli import npz

_KINDS = (".keras", ".h5", ".hdf5")


def refuse_model(path: str, trust: bool) -> None:
    """Raises ValueError where the file cannot or must not be loaded, as far as its name tells."""
    if not path.endswith(_KINDS) or os.path.isdir(path):
        raise ValueError(
            f"{path} is no Keras model; expected a .keras or .h5 file. Save it with model.save('model.keras')."
        )
    if not os.path.exists(path):
        raise ValueError(f"{path}: no such file; expected a .keras or .h5 file.")
    if not path.endswith(".keras") and not trust:  # Keras 3.3 runs its code in spite of safe mode
        raise ValueError(
            f"{path} is an HDF5 file, which may run code when it is loaded; refused. Save the model as .keras, or pass "
            "--trust-model if you trust whoever made the file."
        )


def load_model(path: str, trust: bool, needs_loss: bool) -> Any:
    """The model, by Keras's safe mode unless trusted.

    Without its loss, where that cannot be loaded (Keras 3 does not find the "mse" of an .h5 file) and is not needed.
    """
    from tensorflow import keras

    try:
        return keras.models.load_model(path, safe_mode=not trust)
    except Exception as error:
        reason = _why_not(path, error)
    try:
        if not needs_loss:
            return keras.models.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:
        reason = _why_not(path, error)
    raise ValueError(reason)


def load_data(text: str) -> Any:
    """What `--data` names: `(x, y)` of an .npz file, or what the function of `module:function` returns.

    Raises:
        ValueError: there is no such file or function, or it fails.
    """
    if not text.endswith(".npz") and re.fullmatch(r"[\w.]+:\w+", text):
        return _call(text)
    if not text.endswith(".npz"):
        raise ValueError(f"--data {text}: expected an .npz file with x and y, or module:function.")
    if not os.path.exists(text):
        raise ValueError(f"--data {text}: no such file; expected an .npz file with x and y, or module:function.")
    try:
        return npz.load(text)
    except Exception as error:
        raise ValueError(f"--data {text}: {error}") from error


def _call(text: str) -> Any:
    module_name, name = text.split(":")
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        function = getattr(import_module(module_name), name)
    except Exception as error:
        raise ValueError(f"--data {text} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ValueError(f"--data {text} is {function!r:.60}; expected a function that returns a dataset.")

    try:
        return function()
    except Exception as error:
        raise ValueError(f"--data {text} raised {type(error).__name__}: {error}") from error


def _why_not(path: str, error: BaseException) -> str:
    if "safe_mode" in str(error):
        return (
            f"{path} carries code (a Lambda), which loading it would run; refused. Put a registered layer or function "
            "in its place, or pass --trust-model if you trust whoever made the file."
        )
    while error.__cause__ is not None:  # Keras wraps the reason in pages of configuration
        error = error.__cause__
    return (
        f"{path} cannot be loaded: {shorten(str(error), 200)} Layers or losses of your own must be registered "
        "(keras.saving.register_keras_serializable) in the module of --data module:function, which is imported first."
    )
