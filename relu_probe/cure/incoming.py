"""New incoming weights, biases and BatchNormalization of dead neurons, with which they fire on a given share of positions."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from relu_probe.cure.edit import Edit, value_of
from relu_probe.cure.firing_share import offsets
from relu_probe.cure.forward_pass import Signals
from relu_probe.cure.plan import Incoming
from relu_probe.cure.treatment import Treatment
from relu_probe.report.layer_report import Floats, Mask
from relu_probe.structure.keras_layers import keras_class

NO_INPUT = "nothing but zeros reaches it"
CANNOT_FIRE = "it has no bias, and its weights cannot make it fire"
WOKE = "woke with its input"
# Weights whose norm is more than this multiple of that of new ones are drawn. After one step at 200 times the rate, which kills most
# of a net, raising the bias alone made the training diverge; a normal training multiplies the norm by less than 2.
_OVERSIZED = 4.0
_LEAST_DRAWN = 100  # weights, so that their norm is known well enough also of a narrow layer


class Healer:
    """Makes neurons of one layer fire.

    Args:
        edit: takes the changes.
        incoming: what makes the pre-activations of the layer.
        read: returns the signals of the given neurons, with the weights as they are now.
        threshold: the largest pre-activation at which the ReLU is zero.
        fire: the wanted share of positions at which a neuron fires.
        seed: of the weights that are drawn.
    """

    def __init__(
        self,
        edit: Edit,
        incoming: Incoming,
        read: Callable[[NDArray[np.intp]], Signals],
        *,
        threshold: float,
        fire: float,
        seed: int,
    ) -> None:
        self._edit, self._incoming, self._read = edit, incoming, read
        self._threshold, self._fire, self._seed = threshold, fire, seed

    def heal(self, neurons: NDArray[np.intp], causes: NDArray[np.str_] | None = None) -> Treatment:
        """Method "cause": changes what keeps each neuron from firing now, and nothing else.

        Args:
            neurons: the dead neurons.
            causes: `(n,)` of str, why each was dead before layers in front of it were revived; None if none was.
        """
        signals = self._read(neurons)
        causes = signals.causes if causes is None else causes
        done = Treatment(neurons, causes, np.full(len(neurons), "", "<U40"), {})
        awake = signals.fires
        flip, draw = self._wrong_weights(neurons, signals)
        done.action[awake] = WOKE
        done.action[~awake] = "bias raised" if self._incoming.norm is None else "BatchNormalization set"
        done.action[flip], done.action[draw] = "sign flipped", "weights drawn"
        done.leave(~awake & ~draw & (signals.causes == "input"), NO_INPUT)
        earlier = [value_of(variable) for variable, _ in self._weights(neurons)]
        self._touch(done.revived)
        self._change_weights(neurons[flip], neurons[draw])
        treated = done.revived[np.isin(done.revived, neurons[~awake | draw])]
        if len(treated) and len(silent := self._set_offsets(treated)):
            done.leave(np.isin(neurons, silent), CANNOT_FIRE)
            for (variable, elements), values in zip(self._weights(silent), earlier):
                self._edit.put_back(variable, elements, values)
        return done

    def _wrong_weights(self, neurons: NDArray[np.intp], signals: Signals) -> tuple[Mask, Mask]:
        """`(neurons,)` bool twice: those whose weights are to be flipped, and to be drawn.

        Flipped weights would all point the same way. After one bad step (tests/benchmarks/revival, 24 nets) the accuracy at
        the end was 81.7 ± 11.6 % with flipped and 92.9 ± 0.7 % with drawn weights. But drawn ones may not fire without a bias,
        and some initialisers make zeros.
        """
        silent, cause = ~signals.fires, signals.causes
        starved = silent & (cause == "input")
        if self._incoming.norm is not None:
            constant = np.ptp(signals.product, axis=0) == 0
            return np.zeros(len(neurons), bool), (starved | (silent & constant)) & signals.any_input
        turned = silent & (cause == "weights")
        flip = turned & (self._incoming.bias is None or not np.any(self._drawn_kernel()))
        draw = starved | (silent & (cause == "zero weights")) | (turned & ~flip) | self._are_oversized(neurons)
        return flip, draw & signals.any_input

    def redraw(self, neurons: NDArray[np.intp], causes: NDArray[np.str_] | None = None) -> Treatment:
        """Method "redo" (Sokar et al. 2023, arXiv:2302.12902): weights drawn by the initialiser, bias 0.

        A BatchNormalization before the ReLU gets its initial gamma and beta, and the statistics of the data. The arguments are
        those of `heal`.
        """
        causes = self._read(neurons).causes if causes is None else causes
        done = Treatment(neurons, causes, np.full(len(neurons), "weights drawn", "<U40"), {})
        self._touch(neurons)
        self._change_weights(neurons[:0], neurons)
        if self._incoming.bias is not None:
            self._write_per_neuron(self._incoming.bias, neurons, np.zeros(len(neurons)))
        if (norm := self._incoming.norm) is not None:
            self._set_statistics(norm, neurons, self._read(neurons))
            for name in ("gamma", "beta"):
                if (variable := getattr(norm, name, None)) is not None:
                    self._write_per_neuron(variable, neurons, _drawn(norm, name, variable, self._seed)[neurons])
        return done

    # --- weights ------------------------------------------------------------------------------------------------------

    def _weights(self, neurons: NDArray[np.intp]) -> list[tuple[Any, Mask]]:
        """All weights that belong to the neurons, each with the mask of its elements."""
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        one_each = [self._incoming.bias, *(getattr(self._incoming.norm, name, None) for name in names)]
        kernel = (self._incoming.kernel, self._weights_of(neurons))
        return [kernel, *((each, _elements(each, neurons)) for each in one_each if each is not None)]

    def _touch(self, neurons: NDArray[np.intp]) -> None:
        """Counts all weights of the neurons as touched, whether or not their values change."""
        for variable, elements in self._weights(neurons):
            self._edit.touch(variable, elements)

    def _are_oversized(self, neurons: NDArray[np.intp]) -> Mask:
        """`(neurons,)` bool: the weights have grown so much that a neuron which fires would swamp the next layer."""
        kernel = value_of(self._incoming.kernel)
        unit = np.broadcast_to(self._incoming.unit, kernel.shape).reshape(-1)
        now = np.bincount(unit, np.square(kernel.astype(np.float64)).reshape(-1))
        draws = range(math.ceil(_LEAST_DRAWN / kernel.size))
        at_first = sum(np.square(self._drawn_kernel(i), dtype=np.float64).sum() for i in draws) / len(draws) / len(now)
        return np.asarray((at_first > 0) & (now[neurons] > _OVERSIZED**2 * at_first))

    def _drawn_kernel(self, more: int = 0) -> NDArray[Any]:
        layer = self._incoming.linear
        return _drawn(layer, _kernel_name(layer), self._incoming.kernel, self._seed + more)

    def _change_weights(self, flip: NDArray[np.intp], draw: NDArray[np.intp]) -> None:
        kernel = self._incoming.kernel
        if len(flip):
            self._edit.write(kernel, self._weights_of(flip), -value_of(kernel))
        if len(draw):
            self._edit.write(kernel, self._weights_of(draw), self._drawn_kernel())
        self._constrain(kernel, self._weights_of(np.concatenate([flip, draw])))

    def _weights_of(self, neurons: NDArray[np.intp]) -> Mask:
        unit = np.broadcast_to(self._incoming.unit, tuple(self._incoming.kernel.shape))
        return np.isin(unit, neurons)

    def _write_per_neuron(self, variable: Any, neurons: NDArray[np.intp], values: Floats) -> None:
        every = value_of(variable).reshape(-1)
        every[neurons] = values
        elements = _elements(variable, neurons)
        self._edit.write(variable, elements, every.reshape(variable.shape))
        self._constrain(variable, elements)

    def _constrain(self, variable: Any, elements: Mask) -> None:
        """Applies the constraint of a weight, which Keras does after each step, to the elements that were written."""
        if (constraint := getattr(variable, "constraint", None)) is not None and np.any(elements):
            self._edit.write(variable, elements, np.asarray(constraint(tf.constant(value_of(variable)))))

    # --- offsets ------------------------------------------------------------------------------------------------------

    def _set_offsets(self, neurons: NDArray[np.intp]) -> NDArray[np.intp]:
        """Makes the neurons fire on the wanted share of positions. Returns those that cannot."""
        signals, norm = self._read(neurons), self._incoming.norm
        offset = self._incoming.bias if norm is None else getattr(norm, "beta", None)
        z = signals.z if norm is None else self._set_statistics(norm, neurons, signals)
        if offset is None:
            return self._turn_to_fire(neurons, z)
        current = value_of(offset).reshape(-1)[neurons].astype(np.float64) if norm is None else 0.0
        self._write_per_neuron(offset, neurons, current + offsets(z, self._fire))
        return neurons[:0]

    def _turn_to_fire(self, neurons: NDArray[np.intp], z: Floats) -> NDArray[np.intp]:
        """Flips the weights of neurons without a bias that do not fire. Returns those that cannot fire either way."""
        silent = ~np.any(z > 0, axis=0)
        self._change_weights(neurons[silent], neurons[:0])
        return neurons[~self._read(neurons).fires] if np.any(silent) else neurons[:0]

    def _set_statistics(self, norm: Any, neurons: NDArray[np.intp], signals: Signals) -> Floats:
        """Gives BatchNormalization the statistics of the data, and gamma its initial value where it is zero.

        Returns:
            `(positions, neurons)`, z without beta.
        """
        x = signals.product + signals.bias
        mean, variance = x.mean(axis=0), x.var(axis=0)
        self._write_per_neuron(norm.moving_mean, neurons, mean)
        self._write_per_neuron(norm.moving_variance, neurons, variance)
        gamma = np.ones(len(neurons))
        if norm.scale:
            gamma = value_of(norm.gamma)[neurons].astype(np.float64)
            gamma = np.where(gamma == 0, _drawn(norm, "gamma", norm.gamma, self._seed)[neurons], gamma)
            self._write_per_neuron(norm.gamma, neurons, gamma)
        return np.asarray(gamma * (x - mean) / np.sqrt(variance + norm.epsilon) - self._threshold)


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
