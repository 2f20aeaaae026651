"""The share of neurons of which something is true, in one layer or in several layers pooled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import nan
from typing import NamedTuple, Protocol


class Share(NamedTuple):
    """A number of neurons, out of those that can be judged.

    >>> Share(1, 4).fraction, Share(0, 0).fraction
    (0.25, nan)
    """

    neurons: int
    of: int

    @property
    def fraction(self) -> float:
        """`neurons / of`; nan if there are none."""
        return self.neurons / self.of if self.of else nan


def percent_digits(fraction: float) -> str:
    """Returns a fraction in percent with one decimal; never 0.0 or 100.0 for what is not exactly that.

    >>> percent_digits(0.25), percent_digits(0.0), percent_digits(0.0001), percent_digits(0.9999)
    ('25.0', '0.0', '<0.1', '>99.9')
    """
    rounded = f"{100 * fraction:.1f}"
    if rounded == "0.0" and fraction > 0:
        return "<0.1"
    return ">99.9" if rounded == "100.0" and fraction < 1 else rounded


class HasShares(Protocol):
    """What `pooled` asks of a layer."""

    @property
    def shares(self) -> Mapping[str, Share]:
        """Shares of the layer's neurons, by name."""


def pooled(layers: Iterable[HasShares], name: str) -> Share:
    """Returns the share of the neurons of all layers together that have such a share."""
    found = [layer.shares[name] for layer in layers if name in layer.shares]
    return Share(sum(share.neurons for share in found), sum(share.of for share in found))
