"""The weights that make the pre-activations of a ReLU layer, changed neuron by neuron."""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from relu_probe.cure.edit import Edit, value_of
from relu_probe.cure.plan import Incoming
from relu_probe.report.layer_report import Floats, Mask
from relu_probe.structure.keras_layers import keras_class

# Weights whose norm is more than this multiple of that of new ones are drawn. After one step at 200 times the rate, which kills most
# of a net, raising the bias alone made the training diverge; a normal training multiplies the norm by less than 2.
_OVERSIZED = 4.0
_LEAST_DRAWN = 100  # weights, so that their norm is known well enough also of a narrow layer
_ONE_EACH = ("gamma", "beta", "moving_mean", "moving_variance")  # of BatchNormalization: one value for each neuron


class NeuronWeights:
    """The kernel, the bias and the BatchNormalization before a ReLU layer.

    Args:
        edit: takes the changes.
        incoming: what makes the pre-activations of the layer.
        seed: of the weights that are drawn.
    """

    def __init__(self, edit: Edit, incoming: Incoming, seed: int) -> None:
        self._edit, self._incoming, self._seed = edit, incoming, seed

    def of(self, neurons: NDArray[np.intp]) -> list[tuple[Any, Mask]]:
        """All weights that belong to the neurons, each with the mask of its elements."""
        one_each = [self._incoming.bias, *(getattr(self._incoming.norm, name, None) for name in _ONE_EACH)]
        kernel = (self._incoming.kernel, self._in_kernel(neurons))
        return [kernel, *((each, _elements(each, neurons)) for each in one_each if each is not None)]

    def touch(self, neurons: NDArray[np.intp]) -> None:
        """Counts all weights of the neurons as touched, whether or not their values change."""
        for variable, elements in self.of(neurons):
            self._edit.touch(variable, elements)

    def values(self) -> list[NDArray[Any]]:
        """Copies of the weights as they are now, for `put_back`."""
        return [value_of(variable) for variable, _ in self.of(np.arange(0))]

    def put_back(self, neurons: NDArray[np.intp], earlier: list[NDArray[Any]]) -> None:
        """Gives the weights of the neurons the values in earlier copies, and counts them as not touched."""
        for (variable, elements), values in zip(self.of(neurons), earlier):
            self._edit.put_back(variable, elements, values)

    def are_oversized(self, neurons: NDArray[np.intp]) -> Mask:
        """`(neurons,)` bool: the weights have grown so much that a neuron which fires would swamp the next layer."""
        kernel = value_of(self._incoming.kernel)
        unit = np.broadcast_to(self._incoming.unit, kernel.shape).reshape(-1)
        now = np.bincount(unit, np.square(kernel.astype(np.float64)).reshape(-1))
        draws = range(math.ceil(_LEAST_DRAWN / kernel.size))
        at_first = sum(np.square(self.drawn_kernel(i), dtype=np.float64).sum() for i in draws) / len(draws) / len(now)
        return np.asarray((at_first > 0) & (now[neurons] > _OVERSIZED**2 * at_first))

    def drawn_kernel(self, more: int = 0) -> NDArray[Any]:
        """A new value of the whole kernel; `more` is added to the seed."""
        layer = self._incoming.linear
        return _drawn(layer, _kernel_name(layer), self._incoming.kernel, self._seed + more)

    def change_kernel(self, flip: NDArray[np.intp], draw: NDArray[np.intp]) -> None:
        """Flips the sign of the weights of some neurons, and draws those of others."""
        kernel = self._incoming.kernel
        if len(flip):
            self._edit.write(kernel, self._in_kernel(flip), -value_of(kernel))
        if len(draw):
            self._edit.write(kernel, self._in_kernel(draw), self.drawn_kernel())
        self._constrain(kernel, self._in_kernel(np.concatenate([flip, draw])))

    def write(self, variable: Any, neurons: NDArray[np.intp], values: Floats) -> None:
        """Gives a weight with one value for each neuron the values `(n,)` of these neurons."""
        every = value_of(variable).reshape(-1)
        every[neurons] = values
        elements = _elements(variable, neurons)
        self._edit.write(variable, elements, every.reshape(variable.shape))
        self._constrain(variable, elements)

    def drawn_norm(self, name: str, neurons: NDArray[np.intp]) -> NDArray[Any]:
        """`(n,)`: new values of the gamma or beta of the BatchNormalization, for these neurons."""
        norm = self._incoming.norm
        return _drawn(norm, name, getattr(norm, name), self._seed)[neurons]

    def _in_kernel(self, neurons: NDArray[np.intp]) -> Mask:
        unit = np.broadcast_to(self._incoming.unit, tuple(self._incoming.kernel.shape))
        return np.isin(unit, neurons)

    def _constrain(self, variable: Any, elements: Mask) -> None:
        """Applies the constraint of a weight, which Keras does after each step, to the elements that were written."""
        if (constraint := getattr(variable, "constraint", None)) is not None and np.any(elements):
            self._edit.write(variable, elements, np.asarray(constraint(tf.constant(value_of(variable)))))


def _drawn(layer: Any, name: str, variable: Any, seed: int) -> NDArray[Any]:
    """A new value of a weight by the layer's own initialiser."""
    initializer = getattr(layer, f"{name}_initializer")
    config = initializer.get_config() if hasattr(initializer, "get_config") else {}
    if "seed" in config:
        initializer = type(initializer).from_config({**config, "seed": seed})
    return np.asarray(initializer(tuple(variable.shape), dtype=variable.dtype))


def _kernel_name(layer: Any) -> str:
    name = keras_class(layer)
    return "pointwise" if name.startswith("Separable") else "depthwise" if name.startswith("Depthwise") else "kernel"


def _elements(variable: Any, neurons: NDArray[np.intp]) -> Mask:
    """The elements of a weight with one value for each neuron."""
    return np.isin(np.arange(int(np.prod(variable.shape))), neurons).reshape(tuple(variable.shape))
