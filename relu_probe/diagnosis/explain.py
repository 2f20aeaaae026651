"""The text of a diagnosis: a summary with the advice, then for each sick layer the causes, their dates, and how sure they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from relu_probe.diagnosis.advice import Advice, offset_words
from relu_probe.diagnosis.causes import BLOCKED, DEAD, UNKNOWN
from relu_probe.diagnosis.layer_diagnosis import LayerDiagnosis
from relu_probe.diagnosis.roots import SicknessGraph
from relu_probe.diagnosis.triggers import steps
from relu_probe.report.history import History
from relu_probe.report.layer_history import LayerHistory
from relu_probe.report.layer_report import Counts, Floats, Mask
from relu_probe.report.report import Report
from relu_probe.report.text_table import wrapped
from relu_probe.utils.foreign_text import shown, shown_names

SUMMARY_LINES = 10
MOST_NAMED = 6  # layers or epochs in one sentence

_CAUSE_DESCRIPTIONS = {
    "input": "nothing but zeros reaches {them}",
    "zero weights": "all incoming weights are zero",
    "bias": "w.x > 0 on some sample, but {offset} keep{s} z <= 0",
    "weights": "w.x <= 0 on every sample",
    "path": "no path from the loss: a stop_gradient, or an output without a loss",
    "loss": "no gradient leaves the loss for {them}",
    "saturated": "whenever active, at the ceiling of the bounded ReLU",
    "outgoing": "all outgoing weights are zero",
    "downstream": "all units that receive {their} output are dead or blocked",
    UNKNOWN: "the structure of the model does not show the cause",
}


class Explanation(NamedTuple):
    """What the text of a diagnosis is made of: the fields of `Diagnosis`, and what follows from them."""

    layers: Mapping[str, LayerDiagnosis]
    report: Report
    confidence: float
    advice: tuple[Advice, ...]
    graph: SicknessGraph
    history: History | None
    bounds_left: str  # that the data leaves the bounds, "" if it does not

    def __str__(self) -> str:
        """The diagnosis in plain ASCII of at most 80 columns: a summary of at most ten lines, then the layers."""
        parts = [self._summary()]
        if self.graph.sick or self.advice:
            parts += [[line for text in texts for line in text] for texts in self._layers()]
            parts.append([line for note in self._certainty() for line in _wrapped(note)])
        parts.append([line for note in self._notes() for line in _wrapped(note)])
        return "\n\n".join("\n".join(lines) for lines in parts if lines)

    # --- the summary --------------------------------------------------------------------------------------------------

    def _summary(self) -> list[str]:
        lines = _wrapped(_headline(self.layers, self.report, self.graph))
        root = self.graph.root()
        dates = [] if self.history is None or root is None else _dates(self.history.get(root), self.layers[root])
        lines += [line for date in dates for line in _wrapped(f"{shown(root)}: {date}")]
        for number, advice in enumerate(self.advice, 1):
            where = "" if len(self.layers) == 1 else f"{_names(advice.layers, 2)}: "
            item = _wrapped(f"{number}. {where}{advice.text}", " ", "    ")
            rest = len(self.advice) - number
            if len(lines) + len(item) + (rest > 0) > SUMMARY_LINES:
                return [*lines[: SUMMARY_LINES - 1], f" and {rest + 1} more in .advice"]
            lines += item
        return lines

    # --- the layers ---------------------------------------------------------------------------------------------------

    def _layers(self) -> Iterator[list[list[str]]]:
        followers: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for name in self.graph.by_weight():
            if (reason := self._follows(name)) is not None:
                followers.setdefault(reason, []).append(name)
            else:
                yield self._layer(name)
        if followers:
            yield [_wrapped(_follower_line(names, kind, makers)) for (kind, makers), names in followers.items()]

    def _layer(self, name: str) -> list[list[str]]:
        layer = self.layers[name]
        sentences = list(_causes(layer))
        root = self.graph.root()
        if self.history is not None and name != root:
            sentences += [f"When: {date}" for date in _dates(self.history.get(name), layer)]
        if layer.certified is not None:
            sentences.append(
                _certified(int(np.count_nonzero(layer.certified)), layer.report.neurons, layer.bounds_stopped_at)
            )
        for number, advice in enumerate(self.advice, 1):
            if words := advice.findings.get(name):
                sentences.append(f"-> {number}. {words[0].upper()}{words[1:]} [{advice.source}]")
        if np.isfinite(layer.input_offset) and "inputs" not in [a.kind for a in self.advice if name in a.layers]:
            sentences.append(f"Its inputs: {offset_words(layer.input_offset)}; 0 is centred.")
        return [_wrapped(_counts(name, layer)), *(_wrapped(text, "  ", "    ") for text in sentences)]

    def _follows(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        """The cause and the makers of a layer that is sick only because of others, and has no advice of its own."""
        causes = set(self.layers[name].cause) - {""}
        advised = any(name in advice.layers for advice in self.advice)
        if len(causes) != 1 or advised or name == self.graph.root():
            return None
        cause = str(causes.pop())
        makers = self.graph.made_sick_by(name, cause)
        return (cause, tuple(makers)) if makers else None

    # --- the notes ----------------------------------------------------------------------------------------------------

    def _certainty(self) -> list[str]:
        """How sure it is that dead neurons are dead: once, for the layer for which it is least sure."""
        limits = [
            (layer.rate_limit[layer.report.dead].max(), layer.joint_rate_limit[layer.report.dead].max())
            for layer in self.layers.values()
            if np.any(layer.report.dead)
        ]
        if not limits:
            return []
        each, joint = (100 * max(values) for values in zip(*limits))
        return [
            f"With {100 * self.confidence:.10g} % confidence a dead neuron fires on less than {each:.4g} % of samples like "
            f"these; all dead neurons of a layer at once on less than {joint:.4g} %. [Clopper and Pearson 1934]"
        ]

    def _notes(self) -> list[str]:
        notes = [self.bounds_left] if self.bounds_left else []
        notes += _unjudged(self.layers)
        notes += [
            f"{shown(name)}: not counted: {shown(why, 300)}."
            for name, why in list(self.report.unseen.items())[:MOST_NAMED]
        ]
        if (more := len(self.report.unseen) - MOST_NAMED) > 0:
            notes.append(f"{more:,} more are not counted: see .report.unseen.")
        if self.report.never_called:
            notes.append(f"Never called by the model: {shown_names(self.report.never_called)}.")
        if self.layers and not self.report.has_gradients:
            notes.append(
                "Blocked neurons were not looked for: the data has no labels, or the model has no compiled loss."
            )
        return notes


def _headline(layers: Mapping[str, LayerDiagnosis], report: Report, graph: SicknessGraph) -> str:
    on_samples = f"on N = {_number(report.samples, 'sample')}"
    blocked, sick = " or blocked" if report.has_gradients else "", len(graph.sick)
    if sick:
        relu_layers = f"{sick} of {_number(len(layers), 'ReLU layer')} {'has' if sick == 1 else 'have'}"
        return f"{relu_layers} dead{blocked} neurons {on_samples}. The root is {shown(graph.root())}."
    if not layers:
        return "Nothing was judged: no ReLU of the model is counted."
    if any(_is_unjudged(layer, report) for layer in layers.values()):
        return f"No neuron was found dead{blocked} {on_samples}, but not all neurons could be judged."
    neurons = sum(layer.report.neurons for layer in layers.values())
    seen = (
        f" as far as seen: {len(layers):,} of {_number(len(layers) + len(report.unseen), 'ReLU')}"
        if report.unseen
        else ""
    )
    return f"Healthy{seen}: {_none_of(neurons, 'ReLU neuron')} dead{blocked} {on_samples}."


def _is_unjudged(layer: LayerDiagnosis, report: Report) -> bool:
    """Whether something of the layer was not judged: it saw no sample, a NaN, or no gradient where others did."""
    without = report.has_gradients and layer.report.with_gradient is None
    return not layer.report.measured or bool(np.any(layer.report.nan)) or without


def _follower_line(names: list[str], cause: str, makers: tuple[str, ...]) -> str:
    because = {
        "input": f"their inputs died with {_names(makers)}",
        "downstream": f"blocked, because what they feed ({_names(makers)}) is",
        "path": f"no path from the loss, as for {_names(makers)}, which they feed",
    }[cause]
    if len(names) == 1:
        because = because.replace("their inputs", "its inputs").replace("they feed", "it feeds")
    return f"{_names(names)}: {because}."


def _names(names: Sequence[str], most: int = MOST_NAMED) -> str:
    listed = [shown(name, 30) for name in names[:most]]
    if len(names) > most:
        return f"{', '.join(listed)} and {len(names) - most:,} more"
    return " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)


def _counts(name: str, layer: LayerDiagnosis) -> str:
    counts = layer.report
    blocked = "" if counts.blocked is None else f", {np.count_nonzero(counts.blocked):,} blocked"
    return f"{shown(name)}: {np.count_nonzero(counts.dead):,} of {_number(counts.neurons, 'neuron')} dead{blocked}."


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


def _dates(history: LayerHistory | None, layer: LayerDiagnosis) -> list[str]:
    """When the dead neurons died, in one sentence; [] if it is not known."""
    dead = layer.report.dead
    if history is None or len(history.dead_since) != len(dead) or not np.any(dead):
        return []
    dated = dead & (history.dead_since >= 0)
    parts = _never_active(history, dated)
    epochs = np.stack([history.dead_since, history.found_dead], axis=1)
    groups = list(_groups(epochs, dated & history.ever_active))
    parts += [_deaths(history, died) for died in groups[:MOST_NAMED]]
    parts += [f"{np.count_nonzero(groups[MOST_NAMED:]):,} later"] if groups[MOST_NAMED:] else []
    return [f"{'; '.join(parts)}."] if parts else []


def _groups(values: Counts, mask: Mask) -> Iterator[Mask]:
    """Yields the masks of the neurons of `mask` that have the same row of `values` `(neurons, n)`, in the rows' order."""
    for row in np.unique(values[mask], axis=0):
        yield mask & np.all(values == row, axis=1)


def _deaths(history: LayerHistory, died: Mask) -> str:
    """When the neurons of the mask died, which all have the same `dead_since` and `found_dead`."""
    count, since, found = np.count_nonzero(died), history.dead_since[died][0], history.found_dead[died][0]
    if history.last_active is None:
        return f"{count:,} died in epoch {since}"
    last, they_are = steps(history.last_active[died]), "it is" if count == 1 else "they are"
    when = f"at training {last} (epoch {since})" if since < found else f"after training {last}"
    return f"{count:,} died {when}, so that {they_are} dead in all of epoch {found}"


def _never_active(history: LayerHistory, dated: Mask) -> list[str]:
    """The neurons that never fired: born dead where a report from before the first step proves it."""
    never = dated & ~history.ever_active
    born = never & history.born_dead
    parts = [f"{np.count_nonzero(born):,} born dead"] if np.any(born) else []
    others = np.count_nonzero(never & ~born)
    return parts + ([f"{others:,} never active in this fit"] if others else [])


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


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    return wrapped(text, first, hanging=rest)
