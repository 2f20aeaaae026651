"""The model of `relu-probe check`: a file, loaded only if loading it cannot run code, or if the user trusts it.

TensorFlow takes seconds to import, so it is imported only when the model is loaded.
"""

import json
import os
import re
from collections.abc import Iterator
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

from relu_probe.utils.foreign_text import shown

TRUST = "pass --trust-model if you trust whoever made the file."
# The newest release of Keras that mended a hole in safe mode (links to other files inside the weights), and its backport.
MENDED = "3.15.1"
_MENDED, _BACKPORT, _NOT_MENDED = (3, 15, 1), (3, 12, 4), (3, 13)
# Keras calls any of its functions and classes that a Lambda names, in spite of safe mode [3.15.1]. The class TFSMLayer then
# loads a program of TensorFlow, which may read and write files.
_CARRIES_CODE = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "__lambda__")
_MAX_CONFIG = 2**28  # bytes


def check_model_file(path: str, trust: bool) -> None:
    """Checks that a model can be loaded from the file and is allowed to be, as far as that shows before Keras is imported.

    Raises:
        ValueError: there is no such file, it is not a model, or it may carry code and is not trusted.
    """
    if not path.endswith((".keras", ".h5", ".hdf5")) or os.path.isdir(path):
        raise ValueError(
            f"{path} is not a Keras model; expected a .keras or .h5 file. Save it with model.save('model.keras')."
        )
    if not os.path.exists(path):
        raise ValueError(f"{path}: no such file; expected a .keras or .h5 file.")
    if not os.path.isfile(path):
        raise ValueError(f"{path} is no regular file; expected a .keras or .h5 file.")
    if path.endswith(".keras") and not is_zipfile(path):  # tf_keras would load it as HDF5, without safe mode
        raise ValueError(
            f"{path} is no zip file, as a .keras file must be. Save it with model.save('model.keras'); give an HDF5 file "
            "its own ending, .h5."
        )
    if not path.endswith(".keras") and not trust:  # Keras 3.3 runs the code in it in spite of safe mode
        raise ValueError(
            f"{path} is an HDF5 file, which may run code when it is loaded; refused. Save the model as .keras, or {TRUST}"
        )


def load_model(path: str, trust: bool, needs_loss: bool) -> Any:
    """Loads a model, in Keras's safe mode unless the file is trusted.

    If the loss cannot be loaded (Keras 3 does not find the "mse" of an .h5 file) and is not needed, the model is loaded
    without it.

    Raises:
        ValueError: the file cannot be loaded, or may carry code and is not trusted.
    """
    from tensorflow import keras

    if not trust:
        _check_safe_mode(path, getattr(keras, "__version__", "2"))  # tf_keras may have no version here
        _check_config(path)
    try:
        return keras.models.load_model(path, safe_mode=not trust)
    except Exception as error:
        reason = _why_not_loaded(path, error)
    try:
        if not needs_loss:
            return keras.models.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:
        reason = _why_not_loaded(path, error)
    raise ValueError(reason)


def _check_safe_mode(path: str, version: str) -> None:
    """Raises ValueError if the safe mode of this version of Keras has a known hole."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < (3,):
        raise ValueError(
            f"{path}: tf_keras may run code when it loads a model file, since it imports any module that the file names; "
            f"refused. Use Keras {MENDED} or newer, or {TRUST}"
        )
    if numbers < _MENDED and not _BACKPORT <= numbers < _NOT_MENDED:
        raise ValueError(
            f"{path}: Keras {version} may run code or read other files when it loads a model file, in spite of its safe "
            f"mode; refused. Use Keras {MENDED} or newer, or {TRUST}"
        )


def _check_config(path: str) -> None:
    """Raises ValueError if the model's configuration has a layer that carries code."""
    try:
        with ZipFile(path) as archive:
            info = archive.getinfo("config.json")
            if info.file_size > _MAX_CONFIG:
                raise ValueError(f"its config.json has {info.file_size:,} bytes; expected at most {_MAX_CONFIG:,}")
            config = json.loads(archive.read(info))
    except (BadZipFile, KeyError, NotImplementedError, OSError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} cannot be loaded: {shown(error, 200)}") from error
    for text in _strings(config):
        if (name := text.rpartition(".")[2]) in _CARRIES_CODE:
            raise ValueError(_carries_code(path, f"a {name}"))


def _strings(config: Any) -> Iterator[str]:
    """Returns all strings that may name a class: the values of dictionaries, apart from the names of layers."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from (v for k, v in value.items() if isinstance(v, str) and k != "name")
            pending += [v for v in value.values() if isinstance(v, (dict, list))]
        elif isinstance(value, list):
            pending += [v for v in value if isinstance(v, (dict, list))]


def _carries_code(path: str, what: str) -> str:
    return f"{path} carries code ({what}), which loading it would run; refused. Put a registered layer in its place, or {TRUST}"


def _why_not_loaded(path: str, error: BaseException) -> str:
    if "safe_mode" in str(error):
        return _carries_code(path, "such as a Lambda")
    while error.__cause__ is not None:  # Keras wraps the reason in pages of configuration
        error = error.__cause__
    return (
        f"{path} cannot be loaded: {shown(' '.join(str(error).split()), 200)} Layers or losses of your own must be registered "
        "(keras.saving.register_keras_serializable) in the module of --data module:function, which is imported first."
    )
