"""The text of a diagnosis: a summary with the advice, then for each sick layer the causes, their dates, and how sure they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from relu_probe.diagnosis.advice import Advice, offset_words
from relu_probe.diagnosis.layer_diagnosis import LayerDiagnosis
from relu_probe.diagnosis.layer_sentences import (
    MOST_NAMED,
    cause_lines,
    certificate_line,
    counts_line,
    death_dates,
    none_of,
)
from relu_probe.diagnosis.roots import SicknessGraph
from relu_probe.diagnosis.sick_layer import MANY_LATER
from relu_probe.report.history import History
from relu_probe.report.report import Report
from relu_probe.report.text_table import wrapped
from relu_probe.utils.foreign_text import shown, shown_names
from relu_probe.utils.wording import number

SUMMARY_LINES = 10
_FROZEN = "it is frozen, and no path leads to it from the loss"


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
        dates = [] if self.history is None or root is None else death_dates(self.history.get(root), self.layers[root])
        dated = [line for date in dates for line in _wrapped(f"{shown(root)}: {date}")]
        most = SUMMARY_LINES // 2 if self.advice else SUMMARY_LINES
        lines += dated if len(dated) <= most else [*dated[: most - 1], " and more: diagnosis.history has all dates."]
        for place, advice in enumerate(self.advice, 1):
            where = "" if len(self.layers) == 1 else f"{_names(advice.layers, 2)}: "
            item = _wrapped(f"{place}. {where}{advice.text}", " ", "    ")
            rest = len(self.advice) - place
            if len(lines) + len(item) + (rest > 0) > SUMMARY_LINES:
                return [*lines[: SUMMARY_LINES - 1], f" and {rest + 1} more in .advice"]
            lines += item
        if self.graph.sick and not self.advice:
            few = f"less than {100 * MANY_LATER:.0f} % of each layer is sick by itself"
            lines += _wrapped(f"No advice: {few}, as in many trainings that learn well.", " ")
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
        sentences = list(cause_lines(layer))
        root = self.graph.root()
        if self.history is not None and name != root:
            sentences += [f"When: {date}" for date in death_dates(self.history.get(name), layer)]
        if layer.certified is not None:
            sentences.append(
                certificate_line(int(np.count_nonzero(layer.certified)), layer.report.neurons, layer.bounds_stopped_at)
            )
        for place, advice in enumerate(self.advice, 1):
            if words := advice.findings.get(name):
                sentences.append(f"-> {place}. {words[0].upper()}{words[1:]} [{advice.source}]")
        if np.isfinite(layer.input_offset) and "inputs" not in [a.kind for a in self.advice if name in a.layers]:
            sentences.append(f"Its inputs: {offset_words(layer.input_offset)}; 0 is centred.")
        return [
            _wrapped(counts_line(name, layer, self.report.samples)),
            *(_wrapped(text, "  ", "    ") for text in sentences),
        ]

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
        notes += _unjudged(self.layers, gradients=self.report.has_gradients)
        notes += [
            f"{shown(name)}: not counted: {shown(why, 300)}."
            for name, why in list(self.report.unseen.items())[:MOST_NAMED]
        ]
        if (more := len(self.report.unseen) - MOST_NAMED) > 0:
            notes.append(f"{more:,} more are not counted: see .report.unseen.")
        if self.report.never_called:
            notes.append(f"Never called by the model: {shown_names(self.report.never_called)}.")
        if self.layers and not self.report.has_gradients:
            frozen = any(layer.report.frozen for layer in self.layers.values())
            why = _FROZEN if frozen else "the data has no labels, or the model has no compiled loss"
            notes.append(f"Blocked neurons were not looked for: {why}.")
        return notes


def _headline(layers: Mapping[str, LayerDiagnosis], report: Report, graph: SicknessGraph) -> str:
    on_samples = f"on N = {number(report.samples, 'sample')}"
    blocked, sick = " or blocked" if report.has_gradients else "", len(graph.sick)
    if sick:
        relu_layers = f"{sick} of {number(len(layers), 'ReLU layer')} {'has' if sick == 1 else 'have'}"
        return f"{relu_layers} dead{blocked} neurons {on_samples}. The root is {shown(graph.root())}."
    if not layers:
        return "Nothing was judged: no ReLU of the model is counted."
    if any(_is_unjudged(layer, report) for layer in layers.values()):
        return f"No neuron was found dead{blocked} {on_samples}, but not all neurons could be judged."
    neurons = sum(layer.report.neurons for layer in layers.values())
    seen = (
        f" as far as seen: {len(layers):,} of {number(len(layers) + len(report.unseen), 'ReLU')}"
        if report.unseen
        else ""
    )
    return f"Healthy{seen}: {none_of(neurons, 'ReLU neuron')} dead{blocked} {on_samples}."


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


def _unjudged(layers: Mapping[str, LayerDiagnosis], *, gradients: bool) -> list[str]:
    without = [
        name for name, layer in layers.items() if gradients and layer.report.frozen and not layer.report.has_gradients
    ]
    notes = [f"{shown(name)}: blocked neurons were not looked for: {_FROZEN}." for name in without]
    notes += [f"{shown(name)}: not measured." for name, layer in layers.items() if not layer.report.measured]
    return notes + [
        f"{shown(name)}: NaN at {number(count, 'neuron')}, neither active nor dead."
        for name, layer in layers.items()
        if (count := int(np.count_nonzero(layer.report.nan)))
    ]


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    return wrapped(text, first, hanging=rest)
