"""The sentences of a diagnosis about one layer: its counts, the causes, when its neurons died, what is certified. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from relu_probe.diagnosis.causes import BLOCKED, DEAD, UNKNOWN
from relu_probe.diagnosis.finding import steps
from relu_probe.diagnosis.layer_diagnosis import LayerDiagnosis
from relu_probe.report.layer_history import LayerHistory
from relu_probe.report.layer_report import Counts, Floats, Mask
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.wording import number

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
    "disjoint": "wherever {they} fire{s3}, no unit that receives {their} output passes a gradient on",
    UNKNOWN: "the structure of the model does not show the cause",
}


def counts_line(name: str, layer: LayerDiagnosis, samples: int) -> str:
    """How many neurons are dead and blocked, and on how many samples if not on all `samples` of the report."""
    counts = layer.report
    fewer = "" if counts.samples == samples else f", on {number(counts.samples, 'sample')}"
    blocked = "" if counts.blocked is None else f", {np.count_nonzero(counts.blocked):,} blocked"
    return (
        f"{shown(name)}: {np.count_nonzero(counts.dead):,} of {number(counts.neurons, 'neuron')} dead{blocked}{fewer}."
    )


def cause_lines(layer: LayerDiagnosis) -> Iterator[str]:
    """Yields a sentence for each cause."""
    for cause in (*DEAD, *BLOCKED, UNKNOWN):
        if not np.any(mask := layer.cause == cause):
            continue
        offset, count = layer.offset_description, int(np.count_nonzero(mask))
        pronouns = {"they": "it", "them": "it", "their": "its", "s3": "s"}
        if count > 1:
            pronouns = {"they": "they", "them": "them", "their": "their", "s3": ""}
        description = _CAUSE_DESCRIPTIONS[cause].format(**pronouns, offset=offset, s="" if " and " in offset else "s")
        margins = layer.margin[mask & layer.report.dead & ~np.isnan(layer.margin)]
        largest = f"; {pronouns['their']} largest z {_span(margins)}" if len(margins) else ""
        yield f"{cause} ({number(count, 'neuron')}): {description}{largest}."


def _span(values: Floats) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return f"is {low}" if low == high else f"lies between {low} and {high}"


def death_dates(history: LayerHistory | None, layer: LayerDiagnosis) -> list[str]:
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
        return f"{count:,} died {_between_reports(history, since)}"
    last, they_are = steps(history.last_active[died]), "it is" if count == 1 else "they are"
    when = f"at training {last} (epoch {since})" if since < found else f"after training {last}"
    return f"{count:,} died {when}, so that {they_are} dead in all of epoch {found}"


def _between_reports(history: LayerHistory, found: int) -> str:
    """When neurons died that a report without training steps found dead first: after the report before it."""
    before = history.epochs[history.measured & (history.epochs < found)]
    first = int(before.max()) + 1 if len(before) else 0
    return f"in epoch {found}" if first == found else f"in one of the epochs {first} to {found}"


def never_active(history: LayerHistory) -> str:
    """What is known of neurons that are dead in all reports: reports on given data, or of some epochs, do not show all steps."""
    return "never active in this fit" if history.counts_every_step else "never seen active in this fit"


def _never_active(history: LayerHistory, dated: Mask) -> list[str]:
    """The neurons that never fired: born dead where a report from before the first step proves it."""
    never = dated & ~history.ever_active
    born = never & history.born_dead
    parts = [f"{np.count_nonzero(born):,} born dead"] if np.any(born) else []
    others = np.count_nonzero(never & ~born)
    return parts + ([f"{others:,} {never_active(history)}"] if others else [])


def certificate_line(certified: int, neurons: int, stopped_at: str) -> str:
    """How many neurons are certified dead, and where the bounds stopped."""
    if certified:
        are, them = ("is", "it") if certified == 1 else ("are", "them")
        words = f"{certified:,} of {number(neurons, 'neuron')} {are} certified dead: no input within the bounds activates {them}"
    else:
        words = f"{none_of(neurons, 'neuron').capitalize()} certified dead within the bounds"
    stop = f"; the bounds could not be carried through {shown(stopped_at)}" if stopped_at else ""
    return f"{words}{stop}. [Gowal et al. 2018, arXiv:1810.12715]"


def none_of(count: int, noun: str) -> str:
    """None of so many things, with the verb."""
    return f"the only {noun} is not" if count == 1 else f"none of the {count:,} {noun}s is"
