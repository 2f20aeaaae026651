"""What the findings of the advice say in numbers, and of which neurons: a pattern and the values for each kind."""

import re

import numpy as np
from number_reader import COUNT, VALUE

OFFSET = rf"(?:they are constant|the norm of their mean is {VALUE} times that of their deviation)"
OF_CAUSE = {  # kind of advice: the cause of all neurons that it is about, and of no others
    **{"zero_kernel": "zero weights", "zero_input": "input", "no_path": "path"},
    **{"loss": "loss", "saturated": "saturated", "outgoing": "outgoing"},
}


def count(found, name, mask):
    return [int(np.count_nonzero(mask))]


def three_digits(value):
    return f"{value:.3g}"


def offset(found, name):
    """The number of the words on inputs off centre; None for constant inputs, whose words have none."""
    value = found.layers[name].input_offset
    return None if np.isinf(value) else three_digits(value)


def start(found, name):
    return three_digits(found.layers[name].initial_offset)


def threshold(found, name):
    return re.search(rf"the threshold {VALUE}", found.layers[name].offset_description)[1]


def in_epoch(found, name, mask):
    """How many neurons died, and the epoch in which all of them did."""
    history = found.history[name]
    (epoch,) = (int(epoch) for epoch, died in zip(history.epochs, history.died) if died[mask].all())
    return [*count(found, name, mask), epoch]


def narrow(found, name, mask):
    """The widths of the ReLU layers up to this one, and the probability that one of them is born dead."""
    widths = [found.layers[each].report.neurons for each in [*found.layers][: [*found.layers].index(name) + 1]]
    return [", ".join(map(str, widths)), three_digits(1 - np.prod([1 - 0.5**width for width in widths]))]


FINDINGS = (  # kind, pattern, the values of its groups
    ("zero_kernel", rf"All incoming weights of {COUNT} are zero\.", count),
    ("zero_input", rf"Nothing but zeros reaches {COUNT}, and no ReLU .*", count),
    ("second_cause", rf"Without input, z of {COUNT} is the bias, and that is below zero too\.", count),
    ("no_path", rf"No path leads from the loss to {COUNT}\.", count),
    ("loss", rf"No gradient leaves the loss for {COUNT}\.", count),
    ("saturated", rf"Whenever active, {COUNT} (?:is|are) at the ceiling of the bounded ReLU\.", count),
    ("outgoing", rf"All outgoing weights of {COUNT} are zero\.", count),
    ("general", rf"Nothing that was measured says why {COUNT} became so\.", count),
    ("regularizer", rf"{COUNT} died under .*", count),
    ("batchnorm_lag", rf"{COUNT} fired in the last epoch's training steps and not here, in inference mode\.", count),
    ("cut", "The layer is dead as a whole: .*", lambda *_: []),
    (
        "bias_start",
        rf"The initialiser of [\w ]+ starts below zero, at {VALUE}, and holds down {COUNT}\.",
        lambda found, name, mask: [start(found, name), *count(found, name, mask)],
    ),
    (
        "threshold",
        rf"[\w ]+ the threshold {VALUE} hold down {COUNT}\.",
        lambda found, name, mask: [threshold(found, name), *count(found, name, mask)],
    ),
    (
        "inputs",
        rf"The inputs of this first layer are large: their root mean square is {VALUE}\..*",
        lambda found, name, mask: [three_digits(found.layers[name].input_size)],
    ),
    ("inputs", rf"The inputs of this first layer are off centre: {OFFSET}\.", lambda *of: [offset(*of[:2])]),
    (
        "inputs",
        rf"What arrives at {COUNT} of this layer is off centre: {OFFSET}\.",
        lambda *of: [*count(*of), offset(*of[:2])],
    ),
    ("trained_down", rf"{COUNT} fired earlier in the training, .*", count),
    (
        "trained_down",
        rf"The initialiser of the bias gives {VALUE}; that of {COUNT} is now below zero\.",
        lambda found, name, mask: [start(found, name), *count(found, name, mask)],
    ),
    ("learning_rate", rf"{COUNT} died in the first 20 steps of the training\.", count),
    (
        "targets",
        rf"The targets are large: their root mean square is {VALUE}\..*",
        lambda found, name, mask: [three_digits(found.target_size)],
    ),
    ("learning_rate", rf"{COUNT}, alive before, died in epoch (\d+)\.", in_epoch),
    (
        "narrow",
        rf"The whole layer was .*, layers of ([\d, ]+) ReLUs: .* is all dead with probability {VALUE}\.",
        narrow,
    ),
    (
        "dead_output",
        rf"The layer is an output of the model: every prediction (?:of {COUNT} )?is 0, and nothing can train it"
        r"(?:; a ReLU cannot reach ([\d,]+) of ([\d,]+) targets, which are negative)?\.",
        lambda found, name, mask: [None if mask.all() else int(mask.sum()), *(found.layers[name].targets or ())],
    ),
)


def read_finding(reader, found, advice, name, words):
    """Compares what a finding says of a layer, and the neurons that it is about, with the diagnosis."""
    mask = advice.neurons[name]
    if advice.kind in OF_CAUSE:
        reader.check(
            f"neurons of {advice.kind}", np.array_equal(mask, found.layers[name].cause == OF_CAUSE[advice.kind])
        )
    matches = [(re.fullmatch(pattern, words), values) for kind, pattern, values in FINDINGS if kind == advice.kind]
    match, values = next(((match, values) for match, values in matches if match), (None, None))
    reader.check(f"unread finding {words!r}", match is not None)
    if match is not None:
        reader.compare(f"finding {advice.kind}", match.groups(), values(found, name, mask))
