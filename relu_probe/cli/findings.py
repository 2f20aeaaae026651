"""What follows from training a model with several bias initialisers? TotalsLayout in, a table and words out."""

from collections.abc import Callable, Mapping
from math import sqrt
from typing import NamedTuple

from rich.text import Text

from relu_probe.report.table import plain_table, render

SUBJECT, CONTROL = "zeros", "sick_control"


class Outcome(NamedTuple):
    """What one bias initialiser led to; the lists begin at initialisation and go on with the end of each epoch.

    Args:
        neurons: of the hidden layer.
        samples: on which they were measured.
        validated: validation samples.
        dead, zero_gradient: neurons.
        accuracy: in [0, 1], on the validation samples.
    """

    neurons: int
    samples: int
    validated: int
    dead: list[int]
    zero_gradient: list[int]
    accuracy: list[float]


Outcomes = Mapping[str, Outcome]


class _Measure(NamedTuple):
    what: str
    share: Callable[[Outcome], float]
    size: Callable[[Outcome], int]  # of which it is a share
    high_is_bad: bool


_MEASURES = (
    _Measure("Dead at initialisation", lambda o: o.dead[0] / o.neurons, lambda o: o.neurons, True),
    _Measure("Dead after training", lambda o: o.dead[-1] / o.neurons, lambda o: o.neurons, True),
    _Measure("Validation accuracy", lambda o: o.accuracy[-1], lambda o: o.validated, False),
)


def outcome_table(outcomes: Outcomes) -> str:
    """A row for each initialiser and epoch."""
    one = next(iter(outcomes.values()))
    title = (
        f"{one.neurons:,} hidden neurons on {one.samples:,} training samples; accuracy on {one.validated:,} others.\n"
        '"dead" is never active on these samples. Epoch 0 is the initialisation.'
    )
    table = plain_table(title, "bias initialiser", "epoch", "dead", "zero gradient", "validation accuracy")
    for name, outcome in outcomes.items():
        table.add_section()
        for epoch, (dead, zero, accuracy) in enumerate(zip(outcome.dead, outcome.zero_gradient, outcome.accuracy)):
            counts = (f"{count:,} {count / outcome.neurons:6.1%}" for count in (dead, zero))
            table.add_row(Text("" if epoch else name), str(epoch), *counts, f"{accuracy:.1%}")
    return render(table)


def findings(outcomes: Outcomes) -> list[str]:
    """A sentence for each thing that the numbers say, the answer last.

    Two shares differ "beyond chance" where they are more than two standard errors of their difference apart.

    >>> healthy = Outcome(64, 1437, 360, dead=[0, 1], zero_gradient=[0, 1], accuracy=[0.1, 0.95])
    >>> sick = Outcome(64, 1437, 360, dead=[64, 64], zero_gradient=[64, 64], accuracy=[0.1, 0.1])
    >>> print(findings({"zeros": healthy, "random_normal": healthy, "sick_control": sick})[-1])
    Answer: yes. With a bias of zero the model did no worse than with a random one. (One seed.)
    """
    tested = {name: outcome for name, outcome in outcomes.items() if name != CONTROL}
    lines, faults = [], []
    for measure in _MEASURES:
        worse, better = _compare(tested, measure)
        shares = ", ".join(f"{name} {measure.share(outcome):.1%}" for name, outcome in tested.items())
        lines.append(f"{measure.what}: {shares}. {_difference(worse, better)}")
        faults += [f"{measure.what.lower()}, against {' and '.join(worse)}"] if worse else []
    seen = _kills(outcomes)
    return [*lines, *_deaths(tested), *_blocked(tested), _control(outcomes[CONTROL], seen), _answer(seen, faults)]


def _compare(tested: Outcomes, measure: _Measure) -> tuple[list[str], list[str]]:
    """The rivals than which a zero bias is worse, and those than which it is better, beyond chance."""
    subject, n = measure.share(tested[SUBJECT]), measure.size(tested[SUBJECT])
    differ = {name: measure.share(o) for name, o in tested.items() if _differ(subject, measure.share(o), n)}
    worse = [name for name, share in differ.items() if (subject > share) == measure.high_is_bad]
    return worse, [name for name in differ if name not in worse]


def _differ(p: float, q: float, n: int) -> bool:
    pooled = (p + q) / 2
    return abs(p - q) > 2 * sqrt(2 * pooled * (1 - pooled) / n)


def _difference(worse: list[str], better: list[str]) -> str:
    parts = [f"{how} than {' and '.join(names)}" for how, names in (("worse", worse), ("better", better)) if names]
    return f"Beyond chance, {SUBJECT} is {', and '.join(parts)}." if parts else "No difference beyond chance."


def _deaths(tested: Outcomes) -> list[str]:
    """With which initialisers neurons died in training."""
    died = [
        n
        for n, o in tested.items()
        if o.dead[-1] > o.dead[0] and _differ(o.dead[-1] / o.neurons, o.dead[0] / o.neurons, o.neurons)
    ]
    if not died:
        return []
    where = "whatever the initial bias" if len(died) == len(tested) else f"with {' and '.join(died)}"
    return [f"Training itself killed neurons, {where}."]


def _blocked(tested: Outcomes) -> list[str]:
    blocked = {name: o.zero_gradient[-1] - o.dead[-1] for name, o in tested.items()}
    found = ", ".join(f"{name} {count:,}" for name, count in blocked.items() if count)
    return [f"Active, but no gradient arrives, after training: {found}."] if found else []


def _kills(outcomes: Outcomes) -> bool:
    """Whether the control has what it was made for: more dead neurons than a zero bias, beyond chance."""
    control, subject = outcomes[CONTROL], outcomes[SUBJECT]
    shares = control.dead[0] / control.neurons, subject.dead[0] / subject.neurons
    return shares[0] > shares[1] and _differ(*shares, control.neurons)


def _control(control: Outcome, kills: bool) -> str:
    dead = f"{control.dead[0]:,} of {control.neurons:,} dead at initialisation"
    verdict = "so dead neurons would have been seen" if kills else "though it was made to kill its neurons"
    return f"{CONTROL}: {dead}, {verdict}; accuracy {control.accuracy[-1]:.1%} after training."


def _answer(seen: bool, faults: list[str]) -> str:
    if not seen:
        return "Answer: none. The control did not show that dead neurons would have been seen. (One seed.)"
    if faults:
        return f"Answer: not here. A bias of zero did worse: {'; '.join(faults)}. (One seed.)"
    return "Answer: yes. With a bias of zero the model did no worse than with a random one. (One seed.)"
