"""How is a diagnosis said? Per sick layer what was found, how sure it is, when it came, and what follows from it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from relu_probe.diagnosis.causes import BLOCKED, DEAD, UNKNOWN
from relu_probe.diagnosis.nans import nan_remedies
from relu_probe.diagnosis.remedies import REMEDIES, Finding
from relu_probe.report.table import WIDTH

if TYPE_CHECKING:
    from relu_probe.diagnosis.diagnose import Diagnosis, LayerDiagnosis

_MEANING = {
    "input": "everything that reaches it is zero",
    "bias": "some sample has w.x > 0, and {offset} keep{s} z <= 0",
    "weights": "w.x <= 0 on every sample",
    "loss": "no gradient leaves the loss",
    "saturated": "always at the ceiling where it fires",
    "outgoing": "its outgoing weights are zero",
    "downstream": "all it feeds is dead or blocked",
    UNKNOWN: "the structure does not show it",
}


def verdict(diagnosis: Diagnosis) -> str:
    """The diagnosis in plain ASCII of at most 80 columns."""
    sick = [name for name, layer in diagnosis.layers.items() if np.any(layer.cause != "")]
    lines = _wrapped(_headline(diagnosis, sick))
    for name in sick:
        lines += ["", *_wrapped(_counts(name, diagnosis.layers[name]))]
        for sentence in _sentences(diagnosis, name):
            lines += _wrapped(sentence, "  ")
    return "\n".join(lines + _caveats(diagnosis))


def _headline(diagnosis: Diagnosis, sick: list[str]) -> str:
    layers = [layer.report for layer in diagnosis.layers.values()]
    samples = f"N = {diagnosis.report.samples:,} samples"
    if sick:
        first = diagnosis.first_sick_layer
        return f"{len(sick)} of {len(layers)} ReLU layers sick on {samples}; the first sick layer is {first}."
    if any(not layer.measured or np.any(layer.nan) for layer in layers):
        return f"No neuron found dead or blocked on {samples}, but not all could be judged."
    neurons = sum(layer.neurons for layer in layers)
    blocked = " or blocked" if diagnosis.report.has_gradients else ""
    return f"Healthy: none of the {neurons:,} ReLU neurons is dead{blocked} on {samples}."


def _counts(name: str, layer: LayerDiagnosis) -> str:
    counts = layer.report
    blocked = "" if counts.blocked is None else f", {np.count_nonzero(counts.blocked):,} blocked"
    return f"{name}: {np.count_nonzero(counts.dead):,} of {counts.neurons:,} neurons dead{blocked}."


def _sentences(diagnosis: Diagnosis, name: str) -> list[str]:
    layer, names = diagnosis.layers[name], list(diagnosis.layers)
    first = diagnosis.first_sick_layer
    finding = Finding(
        layer=layer,
        first_sick=None if first == name else first,
        widths=tuple(diagnosis.layers[n].report.neurons for n in names[: names.index(name) + 1]),
        life=None if diagnosis.history is None else diagnosis.history.get(name),
        jumps=diagnosis.loss_jumps,
    )
    found = [(words[0].upper() + words[1:], r) for r in REMEDIES if (words := r.trigger(finding)) is not None]
    remedies = [f"-> {words} {r.words} [{r.source}]" for words, r in found]
    return [*_causes(layer), *_dates(finding), *_certainty(diagnosis, layer), *remedies]


def _causes(layer: LayerDiagnosis) -> list[str]:
    lines = []
    for cause in (*DEAD, *BLOCKED, UNKNOWN):
        if np.any(mask := layer.cause == cause):
            meaning = _MEANING[cause].format(
                offset=layer.offset_description, s="" if " and " in layer.offset_description else "s"
            )
            margins = layer.margin[mask & layer.report.dead & ~np.isnan(layer.margin)]
            far = f"; largest z from {margins.min():.3g} to {margins.max():.3g}" if len(margins) else ""
            lines.append(f"{cause} ({np.count_nonzero(mask):,}): {meaning}{far}.")
    return lines


def _dates(finding: Finding) -> list[str]:
    life, dead = finding.life, finding.layer.report.dead
    if life is None or len(life.dead_since) != len(dead) or not np.any(dead):
        return []
    known = dead & (life.dead_since >= 0)
    born = np.count_nonzero(known & life.born_dead & ~life.ever_active)
    parts = [f"{born:,} born dead"] if born else []
    epochs, counts = np.unique(life.dead_since[known & life.ever_active], return_counts=True)
    parts += [f"{count:,} died in epoch {epoch}" for epoch, count in zip(epochs, counts)]
    return [f"When: {', '.join(parts)}."] if parts else []


def _certainty(diagnosis: Diagnosis, layer: LayerDiagnosis) -> list[str]:
    dead, lines = layer.report.dead, []
    if np.any(dead):
        each, joint = layer.rate_limit[dead].max(), layer.joint_rate_limit[dead].max()
        lines.append(
            f"At {diagnosis.confidence:.4g} confidence such a dead neuron fires on less than {each:.4g} of samples "
            f"like these, each; on less than {joint:.4g}, all together [Clopper and Pearson 1934]."
        )
    if layer.certified is not None:
        stop = f"; the bounds could not be carried through {layer.bounds_stopped_at}" if layer.bounds_stopped_at else ""
        lines.append(
            f"Certified: {np.count_nonzero(layer.certified):,} cannot fire for any input within the bounds{stop} "
            "[Gowal et al. 2018, arXiv:1810.12715]."
        )
    return lines


def _caveats(diagnosis: Diagnosis) -> list[str]:
    lines = [f"{name}: not measured." for name, layer in diagnosis.layers.items() if not layer.report.measured]
    lines += [
        f"{name}: NaN seen at {count:,} neurons: neither active nor dead."
        for name, layer in diagnosis.layers.items()
        if (count := np.count_nonzero(layer.report.nan))
    ]
    lines += nan_remedies(diagnosis)
    if not diagnosis.report.has_gradients:
        lines.append("Blocked neurons were not looked for: the data has no labels, or the model no compiled loss.")
    return [part for line in ([""] if lines else []) + lines for part in (_wrapped(line) or [""])]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + ("  " if indent else ""))
