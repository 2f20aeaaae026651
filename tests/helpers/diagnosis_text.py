"""The numbers in the text of a diagnosis, parsed back: which of them are not those of the diagnosis."""

import re

import numpy as np
from layer_text import read_dates, read_layer
from number_reader import COUNT, VALUE, Reader

from relu_probe.utils.foreign_text import shown

FOLLOWERS = {
    "input": "inputs died with",
    "downstream": "blocked, because what",
    "path": "no path from the loss, as for",
}
CONSTANTS = (
    "w.x > 0",
    "w.x <= 0",
    "z <= 0",
    "mean 0 and deviation 1",
    "mean 0, deviation 1",
    "clipnorm=1.0",
    "such as 0.1",
    "less than 10 %",
)


def wrong_numbers(found, text, x=None):
    """Returns the kinds of the numbers in a text that are not those of the diagnosis; "unread ..." for what nothing explains.

    Args:
        found: the diagnosis.
        text: its text, or a wrong one.
        x: the inputs, where the model was diagnosed with bounds.
    """
    names = masks(found)
    summary, *parts = [" ".join(part.split()) for part in masked(text, names).split("\n\n")]
    sections = [part for part in parts if re.match(rf"\w+: [\d,]+ of {COUNT} dead", part)]
    wrong, said = [], [part.partition(":")[0] for part in sections]
    readers = [
        Reader(part, wrong) for part in (summary, *sections, " ".join(part for part in parts if part not in sections))
    ]
    read_summary(readers[0], found, names)
    for reader in readers[1:-1]:
        read_layer(reader, found, next(name for name, word in names.items() if word == reader.text.partition(":")[0]))
    read_notes(readers[-1], found, names, said, x)
    for reader in readers:
        left = re.sub("|".join(map(re.escape, CONSTANTS)), "", reader.text)
        reader.check(f"unread: {left}", not re.search(r"\d", left))
    return wrong


def masks(found):
    """A word without digits for each name in the text."""
    layers = found.layers.values()
    names = [*found.layers, found.first_nonfinite_weight, *found.report.unseen, *found.report.never_called]
    names += [name for layer in layers for name in (layer.bounds_stopped_at, layer.regularizers)]
    return {
        name: f"Name{chr(97 + i // 26)}{chr(97 + i % 26)}" for i, name in enumerate(dict.fromkeys(filter(None, names)))
    }


def masked(text, names):
    for name in sorted(names, key=len, reverse=True):
        for each in (shown(name), shown(name, 30)):
            text = re.sub(rf"(?<![\w/]){re.escape(each)}(?![\w/])", names[name], text)
    return text


# --- the summary ------------------------------------------------------------------------------------------------------


def read_summary(reader, found, names):
    sick, samples = sum(bool(np.any(layer.cause != "")) for layer in found.layers.values()), found.report.samples
    neurons, seen = sum(layer.report.neurons for layer in found.layers.values()), len(found.report.unseen)
    if sick:
        pattern = (
            r"^([\d,]+) of ([\d,]+) ReLU layers? (?:has|have) dead(?: or blocked)? neurons on N = ([\d,]+) samples?\. "
            r"The root is (\w+)\."
        )
        reader.cut("headline", pattern, [sick, len(found.layers), samples, names[found.first_sick_layer]])
    elif reader.text.startswith("Healthy"):
        pattern = (
            r"^Healthy(?: as far as seen: ([\d,]+) of ([\d,]+) ReLUs)?: (?:none of the ([\d,]+) ReLU neurons is|"
            r"the only ReLU neuron is not) dead(?: or blocked)? on N = ([\d,]+) samples?\."
        )
        values = [len(found.layers), len(found.layers) + seen] if seen else []
        reader.cut("headline", pattern, [*values, neurons if neurons > 1 else None, samples])
    elif found.layers:
        reader.cut("headline", r"^No neuron was found dead(?: or blocked)? on N = ([\d,]+) samples?, but", [samples])
    read_dates(reader, found, found.first_sick_layer)
    read_advice(reader, found, names)


def read_advice(reader, found, names):
    """What to do, in at most ten lines, each piece with its layers and number; the learning rate now."""
    shown_advice = 0
    for place, advice in enumerate(found.advice, 1):
        text = masked(advice.text, names)
        match = re.search(rf" {place}\. (?:(Name[^:.]*): )?{re.escape(text)}", reader.text)
        if match is None:
            break
        shown_advice = place
        if len(found.layers) > 1:
            reader.check("names", is_list_of(match[1], [names[name] for name in advice.layers]))
        reader.text = reader.text.replace(match[0], f" {text}", 1)
    rates = [match.groups() for match in reader.each(rf"\(it is {VALUE}\)|, which is {VALUE} now")]
    for groups in rates:
        reader.compare("rate", groups, [f"{found.optimizer.learning_rate:.3g}"])
    for match in reader.each(rf"their root mean square is {VALUE}\. "):
        reader.compare("targets", match.groups(), [f"{found.target_size:.3g}"])
    for match in reader.each(r"At training step ([\d,]+) the \w+ was no longer finite"):
        reader.compare("step", match.groups(), [max(j.step for j in found.loss_jumps if not np.isfinite(j.after))])
    more = len(found.advice) - shown_advice
    reader.cut("more advice", r"and ([\d,]+) more in \.advice", [more], needed=more > 0)


def is_list_of(text, names):
    """Whether the text lists the names, such as "a, b and 3 more"."""
    listed, more = re.findall(r"Name\w\w\b", text or ""), re.search(r"and ([\d,]+) more", text or "")
    return listed == names[: len(listed)] and len(listed) + (int(more[1]) if more else 0) == len(names)


# --- the notes --------------------------------------------------------------------------------------------------------


def read_notes(reader, found, names, said, x):
    """The limits, the layers that follow others, and what was not judged. `said`: the layers that have a paragraph."""
    dead = {name: layer.report for name, layer in found.layers.items() if layer.report.dead.any()}
    if limits := re.search(
        r"With ([\d.]+) % confidence .* less than ([\d.]+) % of .* less than ([\d.]+) %\. \[[^\]]*\]", reader.text
    ):
        reader.text = reader.text.replace(limits[0], "")
        read_limits(reader, found.confidence, dead.values(), limits.groups())
    reader.check("limit", bool(limits) == bool(dead))
    for name, word in names.items():
        layer = found.layers.get(name)
        nan = 0 if layer is None else int(layer.report.nan.sum())
        reader.cut("nan", rf"{word}: NaN at {COUNT}, neither active nor dead\.", [nan], needed=nan > 0)
    read_followers(reader, found, names, said)
    for name, why in [*found.report.unseen.items()][:6]:
        reader.text = reader.text.replace(f"{names[name]}: not counted: {masked(why, names)}.", "")
    more = len(found.report.unseen) - 6
    reader.cut("not counted", r"([\d,]+) more are not counted", [more], needed=more > 0)
    if x is not None:
        ends = [f"{float(f(x)):.6g}" for f in (np.min, np.max)]
        reader.cut(
            "bounds", rf"The data reaches from {VALUE} to {VALUE}, outside", ends, needed=bool(found.bounds_left)
        )


def read_limits(reader, confidence, dead, texts):
    """The limits of neurons that never fired on N samples (Clopper and Pearson), the largest of all layers."""
    each = max(1 - (1 - confidence) ** (1 / layer.samples) for layer in dead)
    joint = max(1 - ((1 - confidence) / layer.neurons) ** (1 / layer.samples) for layer in dead)
    reader.check("confidence", np.isclose(float(texts[0]), 100 * confidence))
    for text, limit in zip(texts[1:], (each, joint)):
        reader.check("limit", np.isclose(float(text), 100 * limit, rtol=5.1e-4, atol=0))


def read_followers(reader, found, names, said):
    """The layers without a paragraph: each is in a line on those that are sick because of others, by its only cause."""
    layers = {word: found.layers[name] for name, word in names.items() if name in found.layers}
    for word, layer in layers.items():
        causes = {*layer.cause.tolist()} - {""}
        if causes and word not in said:
            line = re.search(rf"(?:^|\. )((?:\w+, )*(?:\w+ and )?{word}\b[^:.]*: [^.]*)\.", reader.text)
            (cause,) = causes
            reader.check("follower", line is not None and FOLLOWERS[cause] in line[1])
