"""The advice of a diagnosis: the findings of all its layers, in the order in which to mend them. NumPy only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from relu_probe.diagnosis.advice import DATES, SOURCES, TEXTS, Advice, rate_text
from relu_probe.diagnosis.finding import Finding
from relu_probe.diagnosis.nan_messages import nan_advice
from relu_probe.diagnosis.roots import SicknessGraph
from relu_probe.diagnosis.sick_layer import SickLayer
from relu_probe.diagnosis.triggers import findings_of


def advise(diagnosis: Any, graph: SicknessGraph) -> tuple[Advice, ...]:
    """The advice of a `Diagnosis`, the root first; one of kind "general" if the model is sick and nothing measured says why."""
    order = graph.by_weight()
    findings = {name: findings_of(_sick_layer(diagnosis, graph, name)) for name in order}
    return (*_join(findings, diagnosis, order), *nan_advice(diagnosis))


def _sick_layer(diagnosis: Any, graph: SicknessGraph, name: str) -> SickLayer:
    layers, history, trained = diagnosis.layers, diagnosis.history, diagnosis.training_report
    silent = [n for n, layer in layers.items() if not layer.feeds and not layer.is_output and layer.report.dead.all()]
    up_to_here = list(layers)[: list(layers).index(name) + 1]
    return SickLayer(
        diagnosis=layers[name],
        # What blocks a neuron for no known reason may be the root, which comes first.
        own=graph.own(name) & ~(graph.blocked_by_unknown(name) & (name != graph.root())),
        feeders=tuple(graph.made_sick_by(name, "input")),
        unplaced=(*(n for n in silent if n != name), *diagnosis.report.unseen),
        relu_widths=tuple(layers[n].report.neurons for n in up_to_here),
        history=None if history is None else history.get(name),
        loss_jumps=diagnosis.loss_jumps,
        trained=None if trained is None else trained.layers.get(name),
        target_size=diagnosis.target_size,
    )


def _join(findings: Mapping[str, list[Finding]], diagnosis: Any, order: list[str]) -> tuple[Advice, ...]:
    """One advice for each kind and text, in the order of the layers, `findings` of which are joined."""
    rate_is_advised = any(finding.kind == "learning_rate" for each in findings.values() for finding in each)
    groups: dict[tuple[str, str], dict[str, Finding]] = {}
    for name in order:
        for finding in findings.get(name, []):
            groups.setdefault((finding.kind, _text(finding, diagnosis, rate_is_advised)), {})[name] = finding
    return tuple(
        Advice(
            kind,
            tuple(each),
            MappingProxyType({name: finding.neurons for name, finding in each.items()}),
            text,
            SOURCES[kind],
            MappingProxyType({name: finding.words for name, finding in each.items()}),
        )
        for (kind, text), each in groups.items()
    )


def _text(finding: Finding, diagnosis: Any, rate_is_advised: bool) -> str:
    if finding.kind == "trained_down" and rate_is_advised:
        return "Lower the learning rate, for these neurons too."
    if finding.kind in ("learning_rate", "trained_down"):
        return rate_text(diagnosis.optimizer)
    blanks = {"probe": "" if diagnosis.history is not None else DATES} | dict(finding.blanks)
    return TEXTS[finding.kind].format_map(defaultdict(str, blanks))
