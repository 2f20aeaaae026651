"""How is one line left to read on stderr? TensorFlow and Keras are kept from writing there."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the C++ parts, loggers and warnings; what Python code writes to `sys.stderr` still gets there.

    TensorFlow 2.21 writes to file descriptor 2 while it is imported, whatever TF_CPP_MIN_LOG_LEVEL says.
    """
    stderr, descriptor, level = sys.stderr, os.dup(2), logging.root.manager.disable
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        with os.fdopen(os.dup(descriptor), "w", buffering=1) as sys.stderr, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            yield
    finally:
        logging.disable(level)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        sys.stderr = stderr
