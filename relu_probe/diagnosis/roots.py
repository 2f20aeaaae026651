"""The root of a model's sickness: the layer from whose dead or blocked neurons most of the others follow. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from relu_probe.diagnosis.causes import UNKNOWN
from relu_probe.diagnosis.layer_diagnosis import LayerDiagnosis
from relu_probe.report.layer_report import Mask


class SicknessGraph:
    """Which layer's sickness makes which neurons sick.

    A neuron without inputs is made sick by the dead layers that feed it; a neuron that is blocked downstream, or that has no path
    from the loss, by the sick layers that it feeds. All other causes are a neuron's own. A neuron that is blocked and of which it
    is not known by what explains nothing: it makes its layer the root only where nothing else is sick.

    Args:
        layers: name -> `LayerDiagnosis`, in the model's order.
    """

    def __init__(self, layers: Mapping[str, LayerDiagnosis]) -> None:
        self._layers = layers
        self.sick = [name for name, layer in layers.items() if np.any(layer.cause != "")]

    def made_sick_by(self, name: str, cause: str) -> list[str]:
        """The layers that make the neurons of layer `name` with this cause sick; [] if the cause is their own."""
        if cause == "input":
            return [n for n in self.sick if name in self._layers[n].feeds and np.any(self._layers[n].report.dead)]
        if cause in ("downstream", "path"):
            followed = self._layers[name].feeds
            of_a_kind = (lambda n: np.any(self._layers[n].cause == "path")) if cause == "path" else (lambda n: True)
            return [n for n in self.sick if n in followed and n != name and of_a_kind(n)]
        return []

    def own(self, name: str) -> Mask:
        """`(neurons,)`: the sick neurons of a layer that no other layer made sick."""
        causes = self._layers[name].cause
        followers = [cause for cause in np.unique(causes) if self.made_sick_by(name, str(cause))]
        return np.asarray((causes != "") & ~np.isin(causes, followers))

    def root(self) -> str | None:
        """The layer that explains the most sick neurons, its own included; of several the earliest. None in a healthy model."""
        explaining = [name for name in self.sick if np.any(~self.blocked_by_unknown(name) & self.own(name))]
        return max(explaining or self.sick, key=self._explained, default=None)  # the first of equal ones

    def by_weight(self) -> list[str]:
        """The sick layers, the root first, then in the model's order."""
        root = self.root()
        return sorted(self.sick, key=lambda name: name != root)

    def _explained(self, name: str) -> int:
        """The number of sick neurons that are sick because of this layer, directly or through others."""
        found, todo = {name}, [name]
        count = self._number(name, "")
        while todo:
            maker = todo.pop()
            for other in self.sick:
                for cause in set(self._layers[other].cause) - {""}:
                    if other not in found and maker in self.made_sick_by(other, str(cause)):
                        count += self._number(other, str(cause))
                        found.add(other)
                        todo.append(other)
        return count

    def _number(self, name: str, cause: str) -> int:
        """The number of sick neurons of a layer: with this cause, or all of them."""
        causes = self._layers[name].cause
        sick = causes == cause if cause else (causes != "") & ~self.blocked_by_unknown(name)
        return int(np.count_nonzero(sick))

    def blocked_by_unknown(self, name: str) -> Mask:
        """`(neurons,)`: blocked, and it is not known by which layer."""
        layer = self._layers[name]
        return ~layer.report.dead & np.isin(layer.cause, ("disjoint", UNKNOWN))
