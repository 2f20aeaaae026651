"""Healing of dead neurons: incoming weights, biases and BatchNormalization with which they fire on a given share of positions."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from relu_probe.cure.edit import Edit, value_of
from relu_probe.cure.firing_share import offsets
from relu_probe.cure.forward_pass import Signals
from relu_probe.cure.neuron_weights import NeuronWeights
from relu_probe.cure.plan import Incoming
from relu_probe.cure.treatment import Treatment
from relu_probe.report.layer_report import Floats, Mask

NO_INPUT = "nothing but zeros reaches it"
CANNOT_FIRE = "it has no bias, and its weights cannot make it fire"
WOKE = "woke with its input"


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
        self._incoming, self._read = incoming, read
        self._weights = NeuronWeights(edit, incoming, seed)
        self._threshold, self._fire = threshold, fire

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
        earlier = self._weights.values()
        self._weights.touch(done.revived)
        self._weights.change_kernel(neurons[flip], neurons[draw])
        treated = done.revived[np.isin(done.revived, neurons[~awake | draw])]
        if len(treated) and len(silent := self._set_offsets(treated)):
            done.leave(np.isin(neurons, silent), CANNOT_FIRE)
            self._weights.put_back(silent, earlier)
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
        flip = turned & (self._incoming.bias is None or not np.any(self._weights.drawn_kernel()))
        draw = starved | (silent & (cause == "zero weights")) | (turned & ~flip) | self._weights.are_oversized(neurons)
        return flip, draw & signals.any_input

    def redraw(self, neurons: NDArray[np.intp], causes: NDArray[np.str_] | None = None) -> Treatment:
        """Method "redo" (Sokar et al. 2023, arXiv:2302.12902): weights drawn by the initialiser, bias 0.

        A BatchNormalization before the ReLU gets its initial gamma and beta, and the statistics of the data. The arguments are
        those of `heal`.
        """
        causes = self._read(neurons).causes if causes is None else causes
        done = Treatment(neurons, causes, np.full(len(neurons), "weights drawn", "<U40"), {})
        self._weights.touch(neurons)
        self._weights.change_kernel(neurons[:0], neurons)
        if self._incoming.bias is not None:
            self._weights.write(self._incoming.bias, neurons, np.zeros(len(neurons)))
        if (norm := self._incoming.norm) is not None:
            self._set_statistics(neurons, self._read(neurons))
            for name in ("gamma", "beta"):
                if (variable := getattr(norm, name, None)) is not None:
                    self._weights.write(variable, neurons, self._weights.drawn_norm(name, neurons))
        return done

    # --- offsets ------------------------------------------------------------------------------------------------------

    def _set_offsets(self, neurons: NDArray[np.intp]) -> NDArray[np.intp]:
        """Makes the neurons fire on the wanted share of positions. Returns those that cannot."""
        signals, norm = self._read(neurons), self._incoming.norm
        offset = self._incoming.bias if norm is None else getattr(norm, "beta", None)
        z = signals.z if norm is None else self._set_statistics(neurons, signals)
        if offset is None:
            return self._turn_to_fire(neurons, z)
        current = value_of(offset).reshape(-1)[neurons].astype(np.float64) if norm is None else 0.0
        self._weights.write(offset, neurons, current + offsets(z, self._fire))
        return neurons[:0]

    def _turn_to_fire(self, neurons: NDArray[np.intp], z: Floats) -> NDArray[np.intp]:
        """Flips the weights of neurons without a bias that do not fire. Returns those that cannot fire either way."""
        silent = ~np.any(z > 0, axis=0)
        self._weights.change_kernel(neurons[silent], neurons[:0])
        return neurons[~self._read(neurons).fires] if np.any(silent) else neurons[:0]

    def _set_statistics(self, neurons: NDArray[np.intp], signals: Signals) -> Floats:
        """Gives BatchNormalization the statistics of the data, and gamma its initial value where it is zero.

        Returns:
            `(positions, neurons)`, z without beta.
        """
        norm, x = self._incoming.norm, signals.product + signals.bias
        mean, variance = x.mean(axis=0), x.var(axis=0)
        self._weights.write(norm.moving_mean, neurons, mean)
        self._weights.write(norm.moving_variance, neurons, variance)
        gamma = np.ones(len(neurons))
        if norm.scale:
            gamma = value_of(norm.gamma)[neurons].astype(np.float64)
            gamma = np.where(gamma == 0, self._weights.drawn_norm("gamma", neurons), gamma)
            self._weights.write(norm.gamma, neurons, gamma)
        return np.asarray(gamma * (x - mean) / np.sqrt(variance + norm.epsilon) - self._threshold)
