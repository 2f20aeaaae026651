"""Which layers does a probe report on in a fit? Those that the model has, and those that its first step makes."""

from typing import Any

from relu_probe.structure.relu_layers import find_relus, select


class LayerSelection:
    """The keys of the layers. What sub-layers make in `build` is there once the first step has built the model.

    Args:
        layers: names, globs or layer objects; None for every ReLU layer.
        model: as the fit begins.

    Raises:
        ValueError, TypeError: none of its layers is meant.
    """

    def __init__(self, layers: Any, model: Any) -> None:
        self._layers = layers
        self.keys = self._found(model)
        self.missed = ""  # what the newest report has to say of layers that it lacks
        self._unbuilt = not model.built  # until the first report
        self._late: list[str] = []  # the keys, with those of layers that were made since

    def look(self, model: Any, *, counted: bool) -> None:
        """Before a report; `counted` if it was counted while the first step was built, and so without what that made."""
        found = self._found(model) if self._unbuilt else self.keys
        late = [key for key in found if key not in self.keys]
        self._unbuilt, self.missed = False, ""
        if late and counted:
            self._late = found
            self.missed = f"{', '.join(late)} not counted yet: made while the model was built, by its first step"
        elif late:
            self.keys = found

    def take_up(self) -> bool:
        """Whether there were late layers, which are to be counted from now on."""
        late, self._late = self._late, []
        self.keys = late or self.keys
        return bool(late)

    def _found(self, model: Any) -> list[str]:
        return select(find_relus(model), self._layers, model)
