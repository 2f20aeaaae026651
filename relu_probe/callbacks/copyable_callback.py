"""A Keras callback that can be copied and pickled, in a fit too."""

from copy import deepcopy
from typing import Any, ClassVar, Self

import tensorflow as tf


class CopyableCallback(tf.keras.callbacks.Callback):
    """A callback whose copies have what it found, without the model and what was made for one fit: they work in any fit."""

    _of_one_fit: ClassVar[tuple[str, ...]] = ()  # the names of attributes that are None in a copy
    _shared: ClassVar[tuple[str, ...]] = ()  # the names of attributes that a deep copy shares

    def __getstate__(self) -> dict[str, Any]:
        return {name: None if name in self._of_one_fit else value for name, value in self.__dict__.items()}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo.update({id(shared): shared for shared in (getattr(self, name) for name in self._shared)})
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(deepcopy(self.__getstate__(), memo))
        return copied
