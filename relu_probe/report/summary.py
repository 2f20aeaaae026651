"""One line on a report: for `repr()`, and for the end of a fit."""

from __future__ import annotations

from collections.abc import Mapping

from relu_probe.report.coverage import coverage_notes
from relu_probe.report.deaths import Deaths
from relu_probe.report.layer_report import LayerReport
from relu_probe.report.share import Share, percent_digits, pooled
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.wording import number


def summary(layers: Mapping[str, LayerReport], unseen: Mapping[str, str]) -> str:
    """Returns how many neurons of the layers are dead, and the layer with the largest dead fraction.

    >>> summary({"hidden": LayerReport(samples=8, positions=8, active=[0, 3, 8, 8])}, {"lstm": "in a loop"})
    '1 of 4 dead, worst hidden 25 %, 1 ReLU not counted'
    """
    dead, nan = pooled(layers.values(), "dead"), pooled(layers.values(), "nan")
    parts = [f"{dead.neurons:,} of {nan.of:,} dead" if nan.of else "nothing measured"]
    if worst := worst_layer(layers):
        parts.append(f"worst {shown(worst)} {percent(layers[worst].dead_fraction)}")
    parts += [f"{nan.neurons:,} NaN"] if nan.neurons else []
    parts += [f"{number(len(unseen), 'ReLU')} not counted"] if unseen else []
    return ", ".join(parts)


def end_of_fit(layers: Mapping[str, LayerReport], unseen: Mapping[str, str], deaths: Mapping[str, Deaths]) -> str:
    """Returns the line that a probe prints at the end of a fit.

    Args:
        layers: the layers of the newest report.
        unseen: the ReLUs that are not counted, with the reasons.
        deaths: layer name -> the deaths that the newest report shows; empty for a single report.

    >>> from relu_probe.report.deaths import FirstDeath
    >>> layers = {"hidden": LayerReport(samples=8, positions=8, active=[0, 3, 8, 8])}
    >>> end_of_fit(layers, {}, {"hidden": Deaths(1, 4, 0, FirstDeath(2, None))})
    '25 % of 4 ReLU neurons dead, worst hidden (25 %, since epoch 2)'
    """
    dead, nan = pooled(layers.values(), "dead"), pooled(layers.values(), "nan")
    if not dead.of:
        text = _nothing_judged(nan)
    else:
        share = percent(dead.fraction) if dead.neurons else "none"
        text = f"{share} of {number(dead.of, 'ReLU neuron')} dead"
        text += f", NaN at {nan.neurons:,} more" if nan.neurons else ""
    if worst := worst_layer(layers):
        when = f", {deaths[worst].since}" if worst in deaths else ""
        text += f", worst {shown(worst)} ({percent(layers[worst].dead_fraction)}{when})"
    return "; ".join([text, *coverage_notes(unseen, ())])


def death_clauses(layers: Mapping[str, LayerReport], deaths: Mapping[str, Deaths], *, brief: bool = False) -> list[str]:
    """Returns the clauses of a sentence on the layer with the largest dead fraction.

    Args:
        layers: the layers of the newest report.
        deaths: layer name -> the deaths that the newest report shows; empty for a single report.
        brief: leave out the training step where two epochs are named.

    >>> from relu_probe.report.deaths import FirstDeath
    >>> layers = {"hidden": LayerReport(samples=8, positions=8, active=[0, 3, 8, 8])}
    >>> death_clauses(layers, {"hidden": Deaths(1, 4, 0, FirstDeath(2, 310))})
    ['hidden: 1 of 4 dead', 'first deaths in epoch 2 (step 310)']
    """
    if worst := worst_layer(layers):
        return deaths.get(worst, Deaths.undated(layers[worst])).clauses(worst, brief=brief)
    dead, nan = pooled(layers.values(), "dead"), pooled(layers.values(), "nan")
    if not dead.of:
        return [_nothing_judged(nan)]
    more = [f"NaN at {nan.neurons:,} more"] if nan.neurons else []
    return [f"none of {number(dead.of, 'ReLU neuron')} dead", *more]


def _nothing_judged(nan: Share) -> str:
    return f"NaN at {nan.of:,} of {number(nan.of, 'ReLU neuron')}" if nan.of else "nothing was measured"


def worst_layer(layers: Mapping[str, LayerReport]) -> str:
    """Returns the name of the first layer with the largest dead fraction; "" if no neuron is dead."""
    dead = {name: layer.dead_fraction for name, layer in layers.items() if layer.dead_fraction > 0}
    return max(dead, key=lambda name: dead[name], default="")


def percent(share: float) -> str:
    """Returns a share as text, with a decimal that is not 0; never 0 % or 100 % for what is not exactly that.

    >>> percent(0.625), percent(1 / 3), percent(1.0), percent(0.99999)
    ('62.5 %', '33.3 %', '100 %', '>99.9 %')
    """
    return f"{percent_digits(share).removesuffix('.0')} %"
