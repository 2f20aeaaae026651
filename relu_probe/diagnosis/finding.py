"""What a trigger finds in one sick layer: neurons, and what was measured there, in words. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from relu_probe.diagnosis.sick_layer import SickLayer
from relu_probe.report.layer_report import Counts, Mask
from relu_probe.utils.wording import number


@dataclass(frozen=True)
class Finding:
    """What a trigger found.

    Args:
        neurons: `(neurons,)`, those that the advice is about.
        words: what was measured.
        blanks: what the blanks in the advice's text are filled with.
        kind: of the advice.
    """

    neurons: Mask
    words: str
    blanks: Mapping[str, str] = field(default_factory=dict)
    kind: str = ""


def own(layer: SickLayer, claimed: Mask) -> Mask:
    """Dead neurons whose own bias or weights keep z <= 0, and that no trigger before has claimed."""
    return layer.with_cause("bias", "weights") & ~claimed


def steps(found: Counts) -> str:
    """Training steps in words, such as "steps 3 to 5"."""
    first, last = int(found.min()), int(found.max())
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def neurons(mask: Mask) -> str:
    """The number of neurons in words."""
    return number(int(np.count_nonzero(mask)), "neuron")
