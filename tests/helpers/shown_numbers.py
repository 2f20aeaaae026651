"""What a report should show, from its counts alone, and whether shown texts agree to the last digit shown."""

import math
import re

import numpy as np

NEURONS, DEAD, ZERO_GRADIENT, RATES, SAMPLES, POSITIONS = range(6)  # the columns of a report's table


def agrees(text, value):
    """Whether `text`, such as "1,234", "48.9%" or "NaN", is `value` (a share for "%"), rounded to the digits shown."""
    if not isinstance(value, float):
        return text == (f"{value:,}" if isinstance(value, int) else value)
    if math.isnan(value) or text == "NaN":
        return math.isnan(value) and text == "NaN"
    number, percent, decimals = text.rstrip("%"), "%" in text, len(text.rstrip("%").partition(".")[2])
    if text[0] in "<>":
        return (text == "<0.1%" and 0 < value <= 0.0005) or (text == ">99.9%" and 0.9995 <= value < 1)
    found = float(number.replace(",", ""))
    if percent and found in (0, 100):  # never for what is not exactly that
        return found == 100 * value
    return abs(found - (100 * value if percent else value)) <= 0.5000001 * 10**-decimals


def all_agree(texts, values):
    return len(texts) == len(values) and all(map(agrees, texts, values))


def share(flags):
    """Returns the number and the share of the flags; "NaN" if there are none."""
    flags = [bool(flag) for flag in flags]
    return [sum(flags), sum(flags) / len(flags)] if flags else ["NaN"]


def columns(layer):
    """Returns what each column shows of a layer: numbers and words."""
    if not layer.positions:
        return [[layer.neurons], ["-"], ["-"], ["not", "measured"], [0], [0]]
    rates = [count / layer.positions for count in judged(layer, layer.active)]
    return [
        [layer.neurons],
        share(count == 0 for count in judged(layer, layer.active)),
        zero_gradient(layer),
        [float(f(rates)) for f in (np.min, np.median, np.max)] if rates else ["NaN"],
        [layer.samples],
        [layer.positions],
    ]


def judged(layer, counts):
    """Returns the counts of the neurons at which no NaN was seen."""
    return [count for count, nan in zip(counts.tolist(), layer.nan.tolist()) if not nan]


def zero_gradient(layer):
    if layer.with_gradient is None or (layer.frozen and not sum(layer.with_gradient)):
        return ["frozen" if layer.frozen else "-"]
    return share(count == 0 for count in judged(layer, layer.with_gradient))


def total(report):
    """Returns what each column shows of the whole report."""
    measured = [layer for layer in report.layers.values() if layer.positions]
    with_gradient = [layer for layer in measured if layer.with_gradient is not None]
    active = [count for layer in measured for count in judged(layer, layer.active)]
    gradients = [count for layer in with_gradient for count in judged(layer, layer.with_gradient)]
    return [
        [sum(layer.neurons for layer in measured)],
        share(count == 0 for count in active) if measured else ["-"],
        share(count == 0 for count in gradients) if with_gradient else ["-"],
        [],
        [max((layer.samples for layer in measured), default=0)],
        [],
    ]


def table_rows(text):
    """Returns the rows of a printed table, each a list of words, the total last, and the lines below the table."""
    lines = text.splitlines()
    rules = [i for i, line in enumerate(lines) if re.fullmatch("-+", line)]
    rows = [line.split() for line in lines[rules[0] + 1 : rules[-1]]] + [lines[rules[-1] + 1].split()]
    return rows, lines[rules[-1] + 2 :]


def disagreements(report, text):
    """Returns the names of the rows of a printed table that do not show the report's numbers."""
    expected = [*map(columns, report.layers.values()), total(report)]
    names = [*report.layers, "total"]
    heads = text.partition("--")[0].split()
    left_out = {column for column, head in ((RATES, "rate"), (POSITIONS, "positions")) if head not in heads}
    rows, _ = table_rows(text)
    assert len(rows) == len(names), "a row for each layer and the total"
    wanted = [[v for i, values in enumerate(row) if i not in left_out for v in values] for row in expected]
    return [name for name, (_, *texts), values in zip(names, rows, wanted) if not all_agree(texts, values)]
