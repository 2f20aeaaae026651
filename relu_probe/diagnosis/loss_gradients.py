"""The gradients that leave the loss, added up from each step of a pass over the data."""

import numpy as np

from relu_probe.diagnosis.consumers import Consumers
from relu_probe.report.layer_report import Mask


class LossGradientCollector:
    """Collects, over all batches, which channels of the model's outputs received a gradient of the loss.

    Args:
        without_path: the keys of the ReLU layers to which no path leads from the loss.
    """

    def __init__(self, without_path: set[str]) -> None:
        self._received: dict[int, Mask] = {}  # index of the output -> (channels,)
        self._without_path = without_path

    def collect(self, received: dict[int, Mask]) -> None:
        """Adds the gradients of one batch: index of the output -> `(channels,)`, one that is not zero arrived."""
        for index, mask in received.items():
            self._received[index] = mask | self._received.get(index, np.zeros_like(mask))

    def has_no_path(self, key: str) -> bool:
        """Whether the derivative of the loss by the layer's output does not exist, rather than being zero."""
        return key in self._without_path

    def missing(self, consumers: Consumers | None, outputs: set[int] | None, neurons: int) -> Mask:
        """`(neurons,)` bool: no gradient left the loss for the outputs that depend on the neuron.

        Args:
            consumers: the consumers of the ReLU layer, None if unknown.
            outputs: the indices of the model's outputs that depend on the layer, None if unknown.
            neurons: the number of its neurons.
        """
        if not any(np.any(self._received.get(i, False)) for i in (self._received if outputs is None else outputs)):
            return np.ones(neurons, bool)
        if consumers is None or consumers.connections or not consumers.outputs:
            return np.zeros(neurons, bool)
        # The neurons are the channels of outputs and nothing else: each output tells them apart.
        received = [self._received.get(index, np.zeros(neurons, bool)) for index in consumers.outputs]
        return ~np.any(received, axis=0) if all(len(one) == neurons for one in received) else np.zeros(neurons, bool)
