"""Writing of a file that is there whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replaced_file(path: str | os.PathLike[str], *, binary: bool = False) -> Iterator[Any]:
    """Opens a new file, UTF-8 or binary, next to `path`, which takes its place when the block ends without an error.

    Whoever reads `path` sees the earlier file or the whole new one, also after a full disk or a kill. If `path` is a link,
    the file that it points to is replaced; a hard link is broken, so that its other names keep their content.

    Raises:
        OSError: the file cannot be written.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "report.json")
    >>> with replaced_file(path) as file:
    ...     print("{}", file=file)
    >>> path.read_text(), len(list(path.parent.iterdir()))
    ('{}\\n', 1)
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        text = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
        with part.open("xb" if binary else "x", **({} if binary else text)) as file:  # type: ignore[call-overload]
            yield file
        with suppress(OSError):  # there is no earlier file
            shutil.copymode(target, part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
