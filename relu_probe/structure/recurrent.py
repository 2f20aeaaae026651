"""The cells of RNN layers that apply a ReLU."""

from typing import Any, NamedTuple

from relu_probe.structure.keras_layers import cell_activations
from relu_probe.structure.relu_function import is_relu


class RecurrentCell(NamedTuple):
    """A cell of Keras's that applies a ReLU.

    Args:
        layer: the cell.
        neurons: the number of its units, or of its filters.
        axis: the axis of the neurons, -1 or 1.
        relus: its attributes that are ReLU functions, by their names.
    """

    layer: Any
    neurons: int
    axis: int
    relus: dict[str, Any]

    @classmethod
    def of(cls, layer: Any) -> "RecurrentCell | None":
        """Returns the description of a cell; None if it has no ReLU, or a `call` of the user's, which may do anything."""
        relus = {name: function for name, function in cell_activations(layer).items() if is_relu(function)}
        neurons = getattr(layer, "units", None) or getattr(layer, "filters", None)
        if not (relus and neurons):
            return None
        axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
        return cls(layer, int(neurons), axis, relus)


def looped_cells(rnn: Any) -> list[RecurrentCell]:
    """Returns the cells with a ReLU that an RNN layer runs in a loop over the time steps of `(batch, time, ...)`."""
    if getattr(rnn, "unroll", False) or getattr(rnn, "time_major", False):
        return []
    cells = [RecurrentCell.of(each) for each in getattr(rnn.cell, "cells", [rnn.cell])]
    return [each for each in cells if each is not None]
