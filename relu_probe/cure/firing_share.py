"""The offset with which a neuron fires on a given share of positions."""

import numpy as np

from relu_probe.report.layer_report import Floats

_LEAST_OFFSET = 0.1  # z of a neuron that gets the same input at all positions


def offsets(z: Floats, fire: float) -> Floats:
    """`(neurons,)`: what to add to z `(positions, neurons)` so that z > 0 at the share `fire` of the positions.

    The zero then lies halfway between two neighbouring values of z. Where equal values do not allow the share, it is the
    nearest possible one; where all values are equal, z becomes positive everywhere.

    >>> offsets(np.array([[-4.0, -7.0], [-3.0, -7.0], [-2.0, -7.0], [-1.0, -7.0]]), 0.5)
    array([2.5, 7.1])
    """
    return np.array([_offset(np.sort(values)[::-1], fire) for values in z.T])


def _offset(falling: Floats, fire: float) -> float:
    wanted = max(round(fire * len(falling)), 1)
    steps = np.flatnonzero(falling[:-1] > falling[1:]) + 1  # the numbers of positions that can fire without all others
    if not len(steps):
        return float(max(_LEAST_OFFSET, 1e-3 * abs(falling[0])) - falling[0])
    if wanted == len(falling):
        lowest = falling[steps[-1] - 1 :]
        return float((lowest[0] - lowest[-1]) / 2 - lowest[-1])
    count = steps[np.argmin(np.abs(steps - wanted))]
    return float(-(falling[count - 1] + falling[count]) / 2)
