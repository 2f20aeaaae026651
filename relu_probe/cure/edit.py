"""Changes of variables that are taken back as a whole if one fails, and put back on request."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from relu_probe.report.layer_report import Mask


class Change(NamedTuple):
    """Elements of a variable that were touched.

    Args:
        variable: the variable.
        elements: their flat positions.
        before, after: their values.
    """

    variable: Any
    elements: NDArray[np.intp]
    before: NDArray[Any]
    after: NDArray[Any]

    @property
    def name(self) -> str:
        """The path of the variable, where Keras has one, else its name."""
        return str(getattr(self.variable, "path", self.variable.name))

    def is_in_place(self) -> bool:
        """Whether the elements still have the values that they were given, bit by bit."""
        return value_of(self.variable).reshape(-1)[self.elements].tobytes() == self.after.tobytes()

    def undo(self) -> None:
        """Gives the elements the values that they had before."""
        value = value_of(self.variable)
        value.reshape(-1)[self.elements] = self.before
        self.variable.assign(value)


class Edit:
    """A number of writes to variables. It remembers what each variable was before the first of them."""

    def __init__(self) -> None:
        self._originals: dict[int, tuple[Any, NDArray[Any], Mask]] = {}  # variable, value, which elements were touched

    def touch(self, variable: Any, elements: Mask) -> None:
        """Counts elements as touched, whether or not their values change."""
        if id(variable) not in self._originals:
            value = value_of(variable)
            self._originals[id(variable)] = (variable, value, np.zeros(value.shape, bool))
        self._originals[id(variable)][2][...] |= elements

    def write(self, variable: Any, elements: Mask, values: Any) -> None:
        """Gives the elements of a mask of the variable's shape the values in an array that broadcasts to that shape."""
        self.touch(variable, elements)
        value = value_of(variable)
        elements = np.broadcast_to(elements, value.shape)
        value[elements] = np.broadcast_to(values, value.shape)[elements]
        variable.assign(value)

    def put_back(self, variable: Any, elements: Mask, earlier: NDArray[Any]) -> None:
        """Gives the elements of a mask their values in an earlier copy of the variable, and counts them as not touched."""
        self.write(variable, elements, earlier)
        self._originals[id(variable)][2][elements] = False

    def touched(self) -> list[tuple[Any, Mask]]:
        """The variables that were touched so far, each with the mask of its touched elements."""
        return [(variable, mask) for variable, _, mask in self._originals.values()]

    def take_back(self) -> None:
        """Makes everything as it was before the first write."""
        for variable, value, _ in self._originals.values():
            variable.assign(value)

    def changes(self) -> tuple[Change, ...]:
        """What was touched, and its values before and now."""
        found = []
        for variable, before, mask in self._originals.values():
            elements = np.flatnonzero(mask)
            after = value_of(variable).reshape(-1)[elements]
            found.append(Change(variable, elements, before.reshape(-1)[elements], after))
        return tuple(found)


def value_of(variable: Any) -> NDArray[Any]:
    """A copy of the variable's value."""
    return np.array(tf.convert_to_tensor(variable))
