"""The inputs of `relu-probe check`: a model file, loaded safely, and data from an .npz file or a function.

TensorFlow takes seconds to import, so it is imported only when a model is loaded.
"""

import os
import re
import struct
import sys
from importlib import import_module
from textwrap import shorten
from typing import IO, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

# The header of a member of a zip file: it ends with the lengths of the name and of the extra field, which follow.
_LOCAL_HEADER = struct.Struct("<26xHH")


def check_model_file(path: str, trust: bool) -> None:
    """Checks, without reading the file, that a model can be loaded from it and is allowed to be.

    Raises:
        ValueError: there is no such file, it is not a model, or it may carry code and is not trusted.
    """
    if not path.endswith((".keras", ".h5", ".hdf5")) or os.path.isdir(path):
        raise ValueError(
            f"{path} is not a Keras model; expected a .keras or .h5 file. Save it with model.save('model.keras')."
        )
    if not os.path.exists(path):
        raise ValueError(f"{path}: no such file; expected a .keras or .h5 file.")
    if not path.endswith(".keras") and not trust:  # Keras 3.3 runs the code in it in spite of safe mode
        raise ValueError(
            f"{path} is an HDF5 file, which may run code when it is loaded; refused. Save the model as .keras, or pass "
            "--trust-model if you trust whoever made the file."
        )


def load_model(path: str, trust: bool, needs_loss: bool) -> Any:
    """Loads a model, in Keras's safe mode unless the file is trusted.

    If the loss cannot be loaded (Keras 3 does not find the "mse" of an .h5 file) and is not needed, the model is loaded
    without it.

    Raises:
        ValueError: the file cannot be loaded, or carries code and is not trusted.
    """
    from tensorflow import keras

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


def load_data(text: str) -> Any:
    """The data that `--data` names: `(x, y)` of an .npz file, or the return value of `module:function`.

    Raises:
        ValueError: there is no such file or function, or it fails.
    """
    if not text.endswith(".npz") and re.fullmatch(r"[\w.]+:\w+", text):
        return _call_function(text)
    if not text.endswith(".npz"):
        raise ValueError(f"--data {text}: expected an .npz file with x and y, or module:function.")
    if not os.path.exists(text):
        raise ValueError(f"--data {text}: no such file; expected an .npz file with x and y, or module:function.")
    try:
        return load_npz(text)
    except Exception as error:
        raise ValueError(f"--data {text}: {error}") from error


def _call_function(text: str) -> Any:
    module_name, name = text.split(":")
    sys.path.insert(0, os.getcwd())  # modules of the working directory can be imported, as with `python -m`
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


def _why_not_loaded(path: str, error: BaseException) -> str:
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


def load_npz(path: str | os.PathLike[str]) -> tuple[NDArray[Any], ...]:
    """`(x, y)` of an `.npz` file, or `(x,)` if it has no y.

    The arrays of `np.savez` are memory-mapped (`np.load(mmap_mode=...)` does not map an .npz file). The compressed ones
    of `np.savez_compressed` cannot be, and are unpacked in memory.

    Raises:
        ValueError: the file is damaged, has no x, or holds Python objects.
    """
    try:
        with ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if "x" not in members:
                raise ValueError(
                    f"it holds {', '.join(members) or 'nothing'}; expected x and, for gradients, y. "
                    "Write it with np.savez(file, x=x, y=y)."
                )
            return tuple(_array(path, archive, members[name]) for name in ("x", "y") if name in members)
    except BadZipFile as error:
        raise ValueError(f"it is not an .npz file ({error}); expected a file of np.savez(file, x=x, y=y).") from error


def _array(path: str | os.PathLike[str], archive: ZipFile, info: ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member)
        if dtype.hasobject:
            raise ValueError(
                f"{info.filename} holds Python objects; expected numbers. Save an array of one number type."
            )
        start = member.tell()
    size = dtype.itemsize * int(np.prod(shape, dtype=object))
    if info.file_size != start + size:
        raise ValueError(
            f"{info.filename} has {info.file_size - start:,} bytes of numbers; expected {size:,} for {dtype} of shape {shape}. "
            "It is cut off: write the file again."
        )
    if info.compress_type != ZIP_STORED or not size:  # an empty file cannot be mapped
        with np.load(path) as file:
            return np.asarray(file[info.filename.removesuffix(".npy")])
    return np.memmap(path, dtype, "r", _data_offset(path, info) + start, shape, "F" if fortran else "C")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _data_offset(path: str | os.PathLike[str], info: ZipInfo) -> int:
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return int(info.header_offset + _LOCAL_HEADER.size + name + extra)
