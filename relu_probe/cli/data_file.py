"""The data of `relu-probe check`: an .npz file, memory-mapped where that is possible, or the return value of a function."""

import os
import re
import struct
import sys
from importlib import import_module
from typing import IO, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from relu_probe.utils.foreign_text import shown_names
from relu_probe.utils.memory import available_memory

# The header of a member of a zip file: it ends with the lengths of the name and of the extra field, which follow.
_LOCAL_HEADER = struct.Struct("<26xHH")

# What cannot be measured on, for each kind of dtype, and what to save instead.
_NO_NUMBERS = {
    "O": "Python objects; expected numbers. Save an array of one number type.",
    "c": "complex numbers, of which Keras would drop the imaginary part; expected real numbers. Save np.stack([{x}.real, "
    "{x}.imag], axis=-1), or np.abs({x}).",
    "M": "times ({dtype}); expected numbers. Save ({x} - {x}.min()) / np.timedelta64(1, 'h'), for example.",
    "m": "durations ({dtype}); expected numbers. Save {x} / np.timedelta64(1, 'h'), for example.",
    "V": "records or raw bytes ({dtype}); expected numbers. Save np.lib.recfunctions.structured_to_unstructured({x}), or, "
    "for bfloat16, {x}.astype('float32').",
}


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
    if not os.path.isfile(text):
        raise ValueError(f"--data {text} is no regular file; expected an .npz file with x and y, or module:function.")
    try:
        return load_npz(text)
    except Exception as error:
        raise ValueError(f"--data {text}: {error}") from error


def file_of(text: str) -> str | None:
    """The file that `--data` stands for, once the data is loaded; None if its module is not a file."""
    if text.endswith(".npz"):
        return text
    return getattr(sys.modules.get(text.split(":", maxsplit=1)[0]), "__file__", None)


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


def load_npz(path: str | os.PathLike[str]) -> tuple[NDArray[Any], ...]:
    """`(x, y)` of an `.npz` file, or `(x,)` if it has no y.

    The arrays of `np.savez` are memory-mapped (`np.load(mmap_mode=...)` does not map an .npz file). The compressed ones
    of `np.savez_compressed` cannot be, and are unpacked in memory.

    Raises:
        ValueError: the file is damaged, has no x, holds other things than real numbers or text, or unpacks to more
            than the free memory.
    """
    try:
        with ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if "x" not in members:
                raise ValueError(
                    f"it holds {shown_names(members) or 'nothing'}; expected x and, for gradients, y. "
                    "Write it with np.savez(file, x=x, y=y)."
                )
            wanted = [members[name] for name in ("x", "y") if name in members]
            _check_memory(sum(info.file_size for info in wanted if info.compress_type != ZIP_STORED))
            return tuple(_array(path, archive, info) for info in wanted)
    except BadZipFile as error:
        raise ValueError(f"it is not an .npz file ({error}); expected a file of np.savez(file, x=x, y=y).") from error


def _check_memory(size: int) -> None:
    free = available_memory()
    if free is not None and size > free:
        raise ValueError(
            f"its compressed arrays unpack to {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory are free; refused. "
            "Write it with np.savez, not np.savez_compressed: then it is read batch by batch."
        )


def _array(path: str | os.PathLike[str], archive: ZipFile, info: ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member)
        _check_numbers(info.filename, shape, dtype)
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


def _check_numbers(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    x = name.removesuffix(".npy")
    if dtype.kind in _NO_NUMBERS:
        raise ValueError(f"{name} holds {_NO_NUMBERS[dtype.kind].format(dtype=dtype, x=x)}")
    if not shape:
        raise ValueError(
            f"{name} holds a single value ({dtype}); expected an array with a row for each sample. Save {x}[np.newaxis] "
            "for one sample."
        )


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _data_offset(path: str | os.PathLike[str], info: ZipInfo) -> int:
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return int(info.header_offset + _LOCAL_HEADER.size + name + extra)
