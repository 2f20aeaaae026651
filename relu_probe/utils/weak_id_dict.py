"""A dictionary from models to values, which forgets a model that is gone."""

import weakref
from typing import Any


class WeakIdDict:
    """Maps models to values. A value must not keep its model alive.

    Models are compared by identity, unlike in `WeakKeyDictionary`: a model that defines `__eq__` has no hash.

    >>> class Model:
    ...     __hash__ = None
    >>> model, values = Model(), WeakIdDict()
    >>> values[model] = "counters"
    >>> values.get(model)
    'counters'
    >>> del model
    >>> len(values)
    0
    """

    def __init__(self) -> None:
        self._values: dict[int, Any] = {}

    def __setitem__(self, model: Any, value: Any) -> None:
        if id(model) not in self._values:
            weakref.finalize(model, self._values.pop, id(model), None).atexit = False
        self._values[id(model)] = value

    def get(self, model: Any) -> Any:
        """Returns the value, None if there is none."""
        return self._values.get(id(model))

    def __len__(self) -> int:
        return len(self._values)
