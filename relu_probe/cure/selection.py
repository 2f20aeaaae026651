"""Selection of the neurons to revive: dead on enough samples to be sure that they hardly ever fire."""

import math
from collections.abc import Iterable

from relu_probe.utils.wording import number


def needed_samples(neurons: int, confidence: float, min_rate: float) -> int:
    """The number of samples on which a neuron must be dead for the upper limit of its firing rate to be below `min_rate`.

    The limit is that of Clopper & Pearson (1934, Biometrika 26:404), joint over the neurons of a layer (Bonferroni). With
    probability `confidence` no neuron that fires on `min_rate` or more of samples like these is dead on so many.

    >>> needed_samples(24, 0.95, 0.05), needed_samples(1000, 0.95, 0.05)
    (121, 194)
    """
    return math.ceil(math.log(max(neurons, 1) / (1 - confidence)) / -math.log1p(-min_rate))


def check_samples(samples: int, neurons: Iterable[int], confidence: float, min_rate: float) -> None:
    """Raises ValueError if the data has too few samples for the widest of layers with these numbers of neurons."""
    widest = max(neurons, default=1)
    if samples < (needed := needed_samples(widest, confidence, min_rate)):
        raise ValueError(
            f"data has {number(samples, 'sample')}; expected at least {needed:,}: on fewer, one of {number(widest, 'neuron')} that fires on "
            f"{min_rate:.3g} of all samples could look dead (confidence {confidence:g}). Pass more samples, or a larger "
            "min_rate."
        )
