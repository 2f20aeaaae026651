"""A Keras callback that never ends a training by an error of its own."""

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import tensorflow as tf

from relu_probe.structure.support import check_model
from relu_probe.utils.error_policy import ErrorPolicy


class GuardedCallback(tf.keras.callbacks.Callback):
    """A callback whose hooks are decorated with `guarded`.

    Args:
        strict: errors stop the training.
    """

    def __init__(self, strict: bool) -> None:
        super().__init__()
        self.strict = strict
        self._error_policy = ErrorPolicy(strict)

    def set_model(self, model: Any) -> None:
        """Keras's hook, the first of a fit. Raises TypeError or ValueError if the model, its backend or its strategy is not supported."""
        check_model(model)
        super().set_model(model)
        self._error_policy = ErrorPolicy(self.strict)

    def _close(self) -> None:
        """Closes what the callback holds open. Called after an error: Keras skips `on_train_end`."""


def guarded(*intended: type[Exception]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a hook: after an error, one warning is given, and the hooks of the callback do nothing until the next fit.

    Args:
        intended: errors that the hook raises on purpose. What the callback's `ErrorPolicy` has raised is raised, too.
    """

    def decorate(hook: Callable[..., None]) -> Callable[..., None]:
        @wraps(hook)
        def run(self: Any, *args: Any, **kwargs: Any) -> None:
            part = type(self).__name__
            if self._error_policy.is_switched_off(part):
                return
            try:
                hook(self, *args, **kwargs)
            except Exception as error:
                with suppress(Exception):
                    self._close()
                if isinstance(error, intended):
                    raise
                self._error_policy.handle(part, error)

        return run

    return decorate
