"""PNG files of RGB images. TensorFlow's encoder takes ten times as long, most of it for the calls of operations."""

import struct
import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ZLIB_HEADER = b"\x78\x01"  # deflate, a window of 32 kB, the fastest level


def encode_png(image: NDArray[np.uint8], shared: int = 0) -> bytes:
    """Returns the PNG file of an image `(height, width, 3)`.

    Args:
        image: the image.
        shared: the number of its last rows that other images have, too: they are compressed once.

    >>> encode_png(np.zeros((2, 3, 3), np.uint8))[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    height, width, _ = image.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with the number of its filter, 0 for none
    lines[:, 1:] = image.reshape(height, -1)
    own, foot = lines[: height - shared], lines[height - shared :]
    content = _deflated(own.data, zlib.Z_FULL_FLUSH) + _deflated_foot(foot.tobytes())
    checksum = struct.pack(">I", zlib.adler32(lines.data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    chunks = ((b"IHDR", header), (b"IDAT", _ZLIB_HEADER + content + checksum), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _deflated(lines: bytes | memoryview, end: int) -> bytes:
    """Returns the lines as a part of a zlib stream. After a full flush the next part does not depend on it."""
    compressor = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return compressor.compress(lines) + compressor.flush(end)


@lru_cache(maxsize=1)
def _deflated_foot(lines: bytes) -> bytes:
    return _deflated(lines, zlib.Z_FINISH)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
