"""Confidence limits on the rates at which neurons fire. NumPy and SciPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from relu_probe.report.layer_report import Floats


def rate_limit(fired: ArrayLike, samples: int, confidence: float = 0.95) -> Floats:
    """The exact one-sided upper limit of the rate at which a neuron fires (Clopper & Pearson 1934, Biometrika 26:404).

    It holds for frozen weights and independent, identically distributed samples.

    Args:
        fired: `(neurons,)`, the number of samples (images for a convolution, not positions) on which each neuron fired.
        samples: the number of all samples.
        confidence: the confidence level for each neuron by itself: in at most a fraction `1 - confidence` of data sets
            the true rate lies above the limit.

    Returns:
        `(neurons,)`; `1 - (1 - confidence) ** (1 / samples)` for a neuron that never fired.

    >>> rate_limit([0, 5, 10], 10).round(4)
    array([0.2589, 0.7776, 1.    ])
    """
    fired = np.asarray(fired, np.float64)
    below = fired < samples
    return np.where(below, betaincinv(fired + 1, np.where(below, samples - fired, 1.0), confidence), 1.0)


def joint_rate_limit(fired: ArrayLike, samples: int, confidence: float = 0.95) -> Floats:
    """`(neurons,)`: limits that hold for all neurons of the layer at once.

    Each neuron gets the share (1 - confidence) / neurons of the error probability (Bonferroni).

    >>> joint_rate_limit([0, 0], 10).round(4)
    array([0.3085, 0.3085])
    """
    neurons = max(np.size(fired), 1)
    return rate_limit(fired, samples, 1 - (1 - confidence) / neurons)
