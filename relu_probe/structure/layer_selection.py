"""The layers that a probe reports on during a fit, including layers that are made while the first step builds the model."""

from typing import Any

from relu_probe.structure.layer_matching import select_before_a_step, select_layers
from relu_probe.structure.relu_layers import ReluLayer, find_relus
from relu_probe.utils.foreign_text import shown_names


class LayerSelection:
    """The keys of the selected layers. Sub-layers that are made in `build` exist once the first step has built the model.

    Args:
        layers: names, globs or layer objects; None for every ReLU layer.
        model: the model, as it is when the fit begins.

    Attributes:
        keys: the keys of the selected layers; ReLUs written as functions are not among them.
        incomplete: which layers the newest report lacks, and why; "" if none.
        warned: whether a warning said that nothing can be counted.

    Raises:
        ValueError: `layers` selects no ReLU layer of the model.
    """

    def __init__(self, layers: Any, model: Any) -> None:
        self._layers = layers
        self.keys = self._select(model)
        self.incomplete, self.warned = "", False
        self._unbuilt = not model.built  # until the first report
        self._late: list[str] = []  # all keys, if layers were made since the fit began and are not counted yet

    @property
    def is_everything(self) -> bool:
        """Whether nothing in particular was selected."""
        return self._layers is None

    def select(self, relus: list[ReluLayer], model: Any) -> list[str]:
        """Returns the keys of the selected ones of these ReLUs."""
        return select_layers(relus, self._layers, model)

    def find_late_layers(self, model: Any, *, counted: bool) -> None:
        """Looks once, before the first report, for layers that the first step has made.

        Args:
            model: the model.
            counted: whether the report was counted while the first step was built, and so lacks the layers it made.
        """
        found = self._select(model) if self._unbuilt else self.keys
        late = [key for key in found if key not in self.keys]
        self._unbuilt, self.incomplete = False, ""
        if late and counted:
            self._late = found
            self.incomplete = f"{shown_names(late)} not counted yet: made while the model was built, by its first step"
        elif late:
            self.keys = found

    def add_late_layers(self) -> bool:
        """Selects the late layers too, and returns whether there are any: they have to be counted from now on."""
        late, self._late = self._late, []
        self.keys = late or self.keys
        return bool(late)

    def _select(self, model: Any) -> list[str]:
        return select_before_a_step(find_relus(model), self._layers, model)
