"""Access to Keras's list of callbacks during a fit, to act after all other callbacks and to see whether the fit still runs.

Keras does not give the list to a callback. It is found among the callers of a hook, which are Keras's list and `Model.fit`.
"""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import tensorflow as tf


class LastCallback(tf.keras.callbacks.Callback):
    """Calls `work` at the beginning of each training batch, after the hooks of all other callbacks.

    A later hook may raise, and Keras does not tell the other callbacks: what an earlier hook had put on the model would
    stay there.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self.work = work

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Calls `work`."""
        self.work()


def call_last(work: Callable[[], None]) -> bool:
    """Appends `work` to the callbacks of the running fit, and returns whether it will be called.

    It will not be if something other than Keras's list calls the hooks. The list belongs to one fit and ends with it.
    """
    if (fit := fit_under_way()) is None:
        return False
    if not any(isinstance(c, LastCallback) and c.work == work for c in fit.callbacks):
        fit.callbacks.append(LastCallback(work))
    return True


def fit_under_way() -> Any:
    """Returns Keras's list of callbacks, one for each fit, that calls a hook in this thread now; None if there is none."""
    for frame in _callers(sys._getframe(1)):
        if isinstance(fit := frame.f_locals.get("self"), tf.keras.callbacks.CallbackList):
            return fit
    return None


def is_under_way(fit: Any) -> bool:
    """Whether the fit of this list is running, in any thread.

    `Model.fit` has the list in its variable `callbacks`, and the list's own methods in `self`. That the list is alive
    proves nothing: after Ctrl-C in a notebook the traceback holds it.
    """
    frames = [frame for newest in sys._current_frames().values() for frame in _callers(newest)]
    return any(frame.f_locals.get(name) is fit for frame in frames for name in ("self", "callbacks"))


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame itself first."""
    while frame is not None:
        yield frame
        frame = frame.f_back
