"""Reads the paragraph of a layer in the text of a diagnosis: counts, findings, certificate, inputs, dates, causes, margins."""

import numpy as np
from finding_text import OFFSET, offset, read_finding
from number_reader import COUNT, VALUE

CAUSES = "input|zero weights|bias|weights|path|loss|saturated|outgoing|downstream|disjoint|unknown"
STEPS = r"steps? ([\d,]+)(?: to ([\d,]+))?"


def read_layer(reader, found, name):
    layer, counts = found.layers[name], found.layers[name].report
    blocked = None if counts.blocked is None else int(counts.blocked.sum())
    fewer = None if counts.samples == found.report.samples else counts.samples
    pattern = rf"^\w+: ([\d,]+) of {COUNT} dead(?:, ([\d,]+) blocked)?(?:, on ([\d,]+) samples?)?\."
    reader.cut("counts", pattern, [int(counts.dead.sum()), counts.neurons, blocked, fewer])
    places = []
    for place, words, source in (match.groups() for match in reader.each(r" -> (\d+)\. (.*?) \[([^\]]*)\]")):
        places.append(int(place))
        advice = found.advice[int(place) - 1]
        reader.check("source", source == advice.source)
        if name in advice.neurons:
            read_finding(reader, found, advice, name, words)
    reader.check("findings", places == [i for i, advice in enumerate(found.advice, 1) if name in advice.findings])
    if layer.certified is not None:
        read_certificate(reader, int(layer.certified.sum()), counts.neurons)
    reader.cut(
        "inputs", rf"Its inputs: {OFFSET}; 0 is centred\.", [offset(found, name)], needed="Its inputs" in reader.text
    )
    if name != found.first_sick_layer:
        read_dates(reader, found, name)
    read_causes(reader, layer)


def read_causes(reader, layer):
    """The number of neurons of each cause, and the span of their largest z."""
    margin = rf"; (?:its|their) largest z (?:is {VALUE}|lies between {VALUE} and {VALUE})"
    causes = []
    for match in reader.each(rf"(?:^| )({CAUSES}) \({COUNT}\): ([^;]*?)(?:{margin})?\.(?= |$)"):
        cause, count, description, *span = match.groups()
        causes.append(cause)
        z = layer.margin[(layer.cause == cause) & layer.report.dead]
        z = z[~np.isnan(z)]
        ends = dict.fromkeys([f"{z.min():.3g}", f"{z.max():.3g}"]) if len(z) else []
        reader.compare("cause", [count], [int(np.sum(layer.cause == cause))])
        reader.compare("margin", span, ends)
        reader.text += " " + (description.replace(layer.offset_description, "") if cause == "bias" else description)
    reader.check("causes", sorted(causes) == sorted({*layer.cause.tolist()} - {""}))


def read_certificate(reader, certified, neurons):
    some = rf"([\d,]+) of {COUNT} (?:is|are) certified dead: no input within the bounds activates (?:it|them)"
    none = r"(?:None of the ([\d,]+) neurons is|The only neuron is not) certified dead within the bounds"
    values = [certified, neurons] if certified else [neurons if neurons > 1 else None]
    reader.cut("certified", rf"(?:{some if certified else none})[^.]*\. \[[^\]]*\]", values)


def read_dates(reader, found, name):
    """When the dead neurons of a layer died, as the history has it."""
    history = found.history and found.history.get(name)
    if history is None:
        return
    dead = found.layers[name].report.dead & (history.dead_since >= 0)
    for count, words in (
        match.groups() for match in reader.each(r"([\d,]+) (born dead|never (?:seen )?active in this fit)")
    ):
        born = dead & ~history.ever_active & (history.born_dead == (words == "born dead"))
        reader.compare("date", [count], [int(born.sum())])
    pattern = rf"([\d,]+) died (?:at training {STEPS} \(epoch (\d+)\)|after training {STEPS}), so that \w+ (?:is|are) dead in all of epoch (\d+)"
    for count, *when, epoch in (match.groups() for match in reader.each(pattern)):
        since = int(when[2] or epoch)
        died = dead & history.ever_active & (history.dead_since == since) & (history.found_dead == int(epoch))
        steps = [int(f(history.last_active[died])) for f in (np.min, np.max) if died.any()]
        reader.compare(
            "date", [count, *when], [int(died.sum()), *dict.fromkeys(steps), int(when[2]) if when[2] else None]
        )
    pattern = r"([\d,]+) died in (?:epoch (\d+)|one of the epochs (\d+) to (\d+))"
    for count, *epochs in (match.groups() for match in reader.each(pattern)):
        found_dead = int(epochs[0] or epochs[2])
        died = dead & history.ever_active & (history.found_dead == found_dead)
        before = [epoch for epoch, measured in zip(history.epochs, history.measured) if measured and epoch < found_dead]
        values = dict.fromkeys([int(max(before, default=-1)) + 1, found_dead])
        reader.compare("date", [count, *epochs], [int(died.sum()), *values])
