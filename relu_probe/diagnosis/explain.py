"""The text of a diagnosis: for each sick layer the causes, their dates, how sure they are, and the remedies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from relu_probe.diagnosis.causes import BLOCKED, DEAD, UNKNOWN
from relu_probe.diagnosis.layer_diagnosis import LayerDiagnosis
from relu_probe.diagnosis.nan_messages import nan_remedies
from relu_probe.diagnosis.remedies import REMEDIES, SickLayer, steps_text
from relu_probe.report.history import History
from relu_probe.report.layer_history import LayerHistory
from relu_probe.report.layer_report import Counts, Floats, Mask
from relu_probe.report.loss_jumps import LossJump
from relu_probe.report.report import Report
from relu_probe.report.text_table import wrapped
from relu_probe.utils.foreign_text import shown

_CAUSE_DESCRIPTIONS = {
    "input": "nothing but zeros reaches {them}",
    "bias": "w.x > 0 on some sample, but {offset} keep{s} z <= 0",
    "weights": "w.x <= 0 on every sample",
    "loss": "no gradient leaves the loss for {them}",
    "saturated": "whenever active, at the ceiling of the bounded ReLU",
    "outgoing": "all outgoing weights are zero",
    "downstream": "all units that receive {their} output are dead or blocked",
    UNKNOWN: "the structure of the model does not show the cause",
}


def explain(
    layers: Mapping[str, LayerDiagnosis],
    report: Report,
    confidence: float,
    *,
    first_sick_layer: str | None,
    history: History | None,
    loss_jumps: tuple[LossJump, ...],
    finite_data: bool,
    first_nonfinite_weight: str,
) -> str:
    """The diagnosis in plain ASCII of at most 80 columns. The arguments are the fields of `Diagnosis`."""
    sick = [name for name, layer in layers.items() if np.any(layer.cause != "")]
    lines = _wrapped(_headline(layers, report, len(sick), first_sick_layer))
    for name in sick:
        up_to_here = list(layers)[: list(layers).index(name) + 1]
        sick_layer = SickLayer(
            diagnosis=layers[name],
            first_sick_layer=None if first_sick_layer == name else first_sick_layer,
            relu_widths=tuple(layers[n].report.neurons for n in up_to_here),
            history=None if history is None else history.get(name),
            loss_jumps=loss_jumps,
        )
        sentences = _sentences(sick_layer, confidence)
        lines += [
            "",
            *_wrapped(_counts(name, layers[name])),
            *(line for text in sentences for line in _wrapped(text, "  ")),
        ]
    notes = _unjudged(layers)
    if any(np.any(layer.report.nan) for layer in layers.values()):
        notes += nan_remedies(finite_data, first_nonfinite_weight, loss_jumps)
    if not report.has_gradients:
        notes.append("Blocked neurons were not looked for: the data has no labels, or the model has no compiled loss.")
    return "\n".join([*lines, *([""] if notes else []), *(line for note in notes for line in _wrapped(note))])


def _headline(layers: Mapping[str, LayerDiagnosis], report: Report, sick: int, first_sick_layer: str | None) -> str:
    on_samples = f"on N = {_number(report.samples, 'sample')}"
    blocked = " or blocked" if report.has_gradients else ""
    if sick:
        relu_layers = f"{sick} of {_number(len(layers), 'ReLU layer')} {'has' if sick == 1 else 'have'}"
        return f"{relu_layers} dead{blocked} neurons {on_samples}; the first sick layer is {shown(first_sick_layer)}."
    if any(not layer.report.measured or np.any(layer.report.nan) for layer in layers.values()):
        return f"No neuron was found dead{blocked} {on_samples}, but not all neurons could be judged."
    neurons = sum(layer.report.neurons for layer in layers.values())
    return f"Healthy: {_none_of(neurons, 'ReLU neuron')} dead{blocked} {on_samples}."


def _counts(name: str, layer: LayerDiagnosis) -> str:
    counts = layer.report
    blocked = "" if counts.blocked is None else f", {np.count_nonzero(counts.blocked):,} blocked"
    return f"{shown(name)}: {np.count_nonzero(counts.dead):,} of {_number(counts.neurons, 'neuron')} dead{blocked}."


def _sentences(sick_layer: SickLayer, confidence: float) -> Iterator[str]:
    layer = sick_layer.diagnosis
    yield from _causes(layer)
    if sick_layer.history is not None:
        yield from _dates(sick_layer.history, layer)
    if np.any(layer.report.dead):
        yield _rate_limits(layer, confidence)
    if layer.certified is not None:
        yield _certified(int(np.count_nonzero(layer.certified)), layer.report.neurons, layer.bounds_stopped_at)
    for remedy in REMEDIES:
        if (finding := remedy.trigger(sick_layer)) is not None:
            yield f"-> {finding[0].upper()}{finding[1:]} {remedy.advice} [{remedy.source}]"


def _causes(layer: LayerDiagnosis) -> Iterator[str]:
    for cause in (*DEAD, *BLOCKED, UNKNOWN):
        if not np.any(mask := layer.cause == cause):
            continue
        offset, count = layer.offset_description, int(np.count_nonzero(mask))
        pronouns = {"them": "it", "their": "its"} if count == 1 else {"them": "them", "their": "their"}
        description = _CAUSE_DESCRIPTIONS[cause].format(**pronouns, offset=offset, s="" if " and " in offset else "s")
        margins = layer.margin[mask & layer.report.dead & ~np.isnan(layer.margin)]
        largest = f"; {pronouns['their']} largest z {_span(margins)}" if len(margins) else ""
        yield f"{cause} ({_number(count, 'neuron')}): {description}{largest}."


def _span(values: Floats) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return f"is {low}" if low == high else f"lies between {low} and {high}"


def _dates(history: LayerHistory, layer: LayerDiagnosis) -> list[str]:
    dead = layer.report.dead
    if len(history.dead_since) != len(dead) or not np.any(dead):
        return []
    dated = dead & (history.dead_since >= 0)
    born_dead = np.count_nonzero(dated & history.born_dead & ~history.ever_active)
    never_active = np.count_nonzero(dated & history.never_active)
    parts = [f"{born_dead:,} born dead"] if born_dead else []
    parts += [f"{never_active:,} never active in this fit"] if never_active else []
    epochs = np.stack([history.dead_since, history.found_dead], axis=1)
    parts += [_deaths(history, died) for died in _groups(epochs, dated & history.ever_active)]
    return [f"When: {'; '.join(parts)}."] if parts else []


def _groups(values: Counts, mask: Mask) -> Iterator[Mask]:
    """Yields the masks of the neurons of `mask` that have the same row of `values` `(neurons, n)`, in the rows' order."""
    for row in np.unique(values[mask], axis=0):
        yield mask & np.all(values == row, axis=1)


def _deaths(history: LayerHistory, died: Mask) -> str:
    """When the neurons of the mask died, which all have the same `dead_since` and `found_dead`."""
    count, since, found = np.count_nonzero(died), history.dead_since[died][0], history.found_dead[died][0]
    if history.last_active is None:
        return f"{count:,} died in epoch {since}"
    steps = f"{count:,} died at training {steps_text(history.last_active[died] + 1)} (epoch {since})"
    return (
        steps
        if found == since
        else f"{steps}, so that {'it is' if count == 1 else 'they are'} dead in all of epoch {found}"
    )


def _rate_limits(layer: LayerDiagnosis, confidence: float) -> str:
    dead = layer.report.dead
    each, joint = (100 * limit[dead].max() for limit in (layer.rate_limit, layer.joint_rate_limit))
    neurons = "this dead neuron" if np.count_nonzero(dead) == 1 else "each of these dead neurons"
    return (
        f"With {100 * confidence:.10g} % confidence {neurons} fires on less than {each:.4g} % of samples like these. The "
        f"limit that holds for all neurons of the layer at once is {joint:.4g} %. [Clopper and Pearson 1934]"
    )


def _certified(certified: int, neurons: int, stopped_at: str) -> str:
    if certified:
        are, them = ("is", "it") if certified == 1 else ("are", "them")
        words = f"{certified:,} of {_number(neurons, 'neuron')} {are} certified dead: no input within the bounds activates {them}"
    else:
        words = f"{_none_of(neurons, 'neuron').capitalize()} certified dead within the bounds"
    stop = f"; the bounds could not be carried through {shown(stopped_at)}" if stopped_at else ""
    return f"{words}{stop}. [Gowal et al. 2018, arXiv:1810.12715]"


def _unjudged(layers: Mapping[str, LayerDiagnosis]) -> list[str]:
    notes = [f"{shown(name)}: not measured." for name, layer in layers.items() if not layer.report.measured]
    return notes + [
        f"{shown(name)}: NaN at {_number(count, 'neuron')}, neither active nor dead."
        for name, layer in layers.items()
        if (count := int(np.count_nonzero(layer.report.nan)))
    ]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _none_of(count: int, noun: str) -> str:
    return f"the only {noun} is not" if count == 1 else f"none of the {count:,} {noun}s is"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return wrapped(text, indent, hanging=indent + ("  " if indent else ""))
