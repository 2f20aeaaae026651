"""What is done to the neurons of one layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relu_probe.report.layer_report import Mask


@dataclass
class Treatment:
    """What is done to some neurons of one layer.

    Args:
        neurons: `(n,)`, their numbers.
        cause: `(n,)` of str, why each was dead.
        action: `(n,)` of str, what was done; "" for a neuron that is left as it is.
        left: reason -> the neurons left as they are.
    """

    neurons: NDArray[np.intp]
    cause: NDArray[np.str_]
    action: NDArray[Any]
    left: dict[str, NDArray[np.intp]]

    @classmethod
    def none(cls, neurons: NDArray[np.intp], why: str) -> "Treatment":
        """All neurons are left as they are."""
        empty = np.full(len(neurons), "", "<U40")
        return cls(neurons, empty, empty, {why: neurons})

    @property
    def revived(self) -> NDArray[np.intp]:
        """The neurons that were revived."""
        return self.neurons[self.action != ""]

    def leave(self, mask: Mask, why: str) -> None:
        """Leaves the neurons of a mask `(n,)` as they are."""
        if np.any(mask):
            self.action[mask] = ""
            self.left[why] = self.neurons[mask]
