"""How does a callback act after all others? By joining the list of the fit that is under way, at its end."""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import tensorflow as tf


class LastCallback(tf.keras.callbacks.Callback):
    """Calls `work` at the begin of each training batch, after the hooks of all other callbacks.

    One of those may raise, and Keras tells nobody: what an earlier hook had put on the model would stay there.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self.work = work

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.work()


def call_last(work: Callable[[], None]) -> bool:
    """Whether `work` is now called last: not where the hooks are called by another than Keras's list.

    The list belongs to one fit, and is gone after it.
    """
    if (fit := fit_under_way()) is None:
        return False
    if not any(isinstance(c, LastCallback) and c.work == work for c in fit.callbacks):
        fit.callbacks.append(LastCallback(work))
    return True


def fit_under_way() -> Any:
    """Keras's list of callbacks that calls a hook now, one for each fit. None is given it: it is found among the callers."""
    for frame in _callers(sys._getframe(1)):
        if isinstance(fit := frame.f_locals.get("self"), tf.keras.callbacks.CallbackList):
            return fit
    return None


def is_under_way(fit: Any) -> bool:
    """Whether this list's fit is running, in any thread: `Model.fit` calls it `callbacks`, and it itself `self`.

    That the list lives says nothing: after Ctrl-C in a notebook the traceback holds it.
    """
    frames = [frame for newest in sys._current_frames().values() for frame in _callers(newest)]
    return any(frame.f_locals.get(name) is fit for frame in frames for name in ("self", "callbacks"))


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame itself first."""
    while frame is not None:
        yield frame
        frame = frame.f_back
