"""What is kept for a model as long as it lives?"""

import weakref
from typing import Any


class WeakIdDict:
    """Model -> value; the value must not keep the model alive.

    By identity, unlike `WeakKeyDictionary`: a model that defines `__eq__` has no hash.

    >>> class Model:
    ...     __hash__ = None
    >>> model, kept = Model(), WeakIdDict()
    >>> kept[model] = "counters"
    >>> kept.get(model)
    'counters'
    >>> del model
    >>> len(kept)
    0
    """

    def __init__(self) -> None:
        self._values: dict[int, Any] = {}

    def __setitem__(self, model: Any, value: Any) -> None:
        if id(model) not in self._values:
            weakref.finalize(model, self._values.pop, id(model), None).atexit = False
        self._values[id(model)] = value

    def get(self, model: Any) -> Any:
        """None where there is nothing."""
        return self._values.get(id(model))

    def __len__(self) -> int:
        return len(self._values)
