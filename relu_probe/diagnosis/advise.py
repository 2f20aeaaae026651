"""The advice of a diagnosis: the findings of all its layers, in the order in which to mend them. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from relu_probe.diagnosis.advice import SOURCES, TEXTS, Advice, rate_text
from relu_probe.diagnosis.layer_facts import OptimizerFacts
from relu_probe.diagnosis.nan_messages import nan_advice
from relu_probe.diagnosis.roots import SicknessGraph
from relu_probe.diagnosis.sick_layer import SickLayer
from relu_probe.diagnosis.triggers import Finding, findings_of


def advise(diagnosis: Any, graph: SicknessGraph) -> tuple[Advice, ...]:
    """The advice of a `Diagnosis`, the root first; one of kind "general" if the model is sick and nothing measured says why."""
    order = graph.by_weight()
    findings = {name: findings_of(_sick_layer(diagnosis, graph, name)) for name in order}
    advice = [*_join(findings, diagnosis.optimizer, order), *nan_advice(diagnosis)]
    if graph.sick and all(each.kind == "cut" for each in advice):
        masks = {name: mask for name in order if np.any(mask := graph.own(name))}
        general = Advice("general", tuple(masks), MappingProxyType(masks), TEXTS["general"], SOURCES["general"])
        advice = [general]
    return tuple(advice)


def _sick_layer(diagnosis: Any, graph: SicknessGraph, name: str) -> SickLayer:
    layers, history, trained = diagnosis.layers, diagnosis.history, diagnosis.training_report
    up_to_here = list(layers)[: list(layers).index(name) + 1]
    return SickLayer(
        diagnosis=layers[name],
        name=name,
        feeders=tuple(graph.made_sick_by(name, "input")),
        relu_widths=tuple(layers[n].report.neurons for n in up_to_here),
        history=None if history is None else history.get(name),
        loss_jumps=diagnosis.loss_jumps,
        trained=None if trained is None else trained.layers.get(name),
    )


def _join(findings: Mapping[str, list[Finding]], optimizer: OptimizerFacts, order: list[str]) -> tuple[Advice, ...]:
    """One advice for each kind and text, in the order of the layers, `findings` of which are joined."""
    rate_is_advised = any(finding.kind == "learning_rate" for each in findings.values() for finding in each)
    groups: dict[tuple[str, str], dict[str, Finding]] = {}
    for name in order:
        for finding in findings.get(name, []):
            groups.setdefault((finding.kind, _text(finding, optimizer, rate_is_advised)), {})[name] = finding
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


def _text(finding: Finding, optimizer: OptimizerFacts, rate_is_advised: bool) -> str:
    if finding.kind == "trained_down" and rate_is_advised:
        return "Lower the learning rate, for these neurons too."
    if finding.kind in ("learning_rate", "trained_down"):
        return rate_text(optimizer)
    softplus = ", or softplus" if finding.kind == "dead_output" and " reach 0 of " in finding.words else ""
    what = "beta" if "of beta" in finding.words else "the bias"
    return TEXTS[finding.kind].format(softplus=softplus, what=what)
