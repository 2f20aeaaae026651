"""How is an .npz file read that may be larger than memory? Its uncompressed arrays are memory-mapped; NumPy only."""

from __future__ import annotations

import os
import struct
from typing import IO, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: the lengths of the name and of the extra field end it


def load(path: str | os.PathLike[str]) -> tuple[NDArray[Any], ...]:
    """`(x, y)`, or `(x,)` where there is no y, of an `.npz` file.

    What `np.savez` wrote is memory-mapped (`np.load(mmap_mode=...)` does not do so inside an .npz); what
    `np.savez_compressed` wrote cannot be, and is unpacked in memory.

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
        raise ValueError(f"it is no .npz file ({error}); expected what np.savez(file, x=x, y=y) writes.") from error


def _array(path: str | os.PathLike[str], archive: ZipFile, info: ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member)
        if dtype.hasobject:
            raise ValueError(
                f"{info.filename} holds Python objects; expected numbers. Save an array of one number type."
            )
        start = member.tell()
    if info.file_size != start + dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError(
            f"{info.filename} has {info.file_size - start:,} bytes of numbers; expected those of {dtype} of shape {shape}. "
            "It is cut off: write the file again."
        )
    if info.compress_type != ZIP_STORED or not np.prod(shape):  # an empty map is an error
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
