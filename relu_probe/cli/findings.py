"""The findings of the demo: a table and sentences from the numbers of several trainings."""

from collections.abc import Callable, Mapping
from math import sqrt
from typing import NamedTuple

from relu_probe.report.text_table import terminal_width, text_table

SUBJECT, REVIVED, CONTROL = "zeros", "zeros_revived", "sick_control"


class Outcome(NamedTuple):
    """The result of training with one bias initialiser. The lists have the initialisation and the end of each epoch.

    Args:
        neurons: the number of neurons in the hidden layer.
        samples: the number of samples on which they were measured.
        validated: the number of validation samples.
        dead: the number of dead neurons.
        zero_gradient: the number of neurons with zero gradient.
        accuracy: the accuracy in [0, 1] on the validation samples.
    """

    neurons: int
    samples: int
    validated: int
    dead: list[int]
    zero_gradient: list[int]
    accuracy: list[float]


Outcomes = Mapping[str, Outcome]


class _Measure(NamedTuple):
    name: str
    share: Callable[[Outcome], float]
    size: Callable[[Outcome], int]  # the number of neurons or samples of which it is a share
    high_is_bad: bool


_BORN_DEAD = _Measure("Dead at initialisation", lambda o: o.dead[0] / o.neurons, lambda o: o.neurons, True)
_DEAD = _Measure("Dead after training", lambda o: o.dead[-1] / o.neurons, lambda o: o.neurons, True)
_ACCURACY = _Measure("Validation accuracy", lambda o: o.accuracy[-1], lambda o: o.validated, False)


def outcome_table(outcomes: Outcomes) -> str:
    """A table with a row for each initialiser and epoch."""
    one = next(iter(outcomes.values()))
    title = (
        f"{one.neurons:,} hidden neurons on {one.samples:,} training samples; accuracy on {one.validated:,} others.\n"
        '"dead" means never active on these samples. Epoch 0 is the initialisation.'
    )
    headers = ["bias initialiser", "epoch", "dead", "zero gradient", "validation accuracy"]
    rows: list[list[str] | None] = []
    for name, outcome in outcomes.items():
        rows += [None] if rows else []
        for epoch, (dead, zero, accuracy) in enumerate(zip(outcome.dead, outcome.zero_gradient, outcome.accuracy)):
            counts = (f"{count:,} {count / outcome.neurons:6.1%}" for count in (dead, zero))
            rows.append(["" if epoch else name, str(epoch), *counts, f"{accuracy:.1%}"])
    return f"{title}\n{text_table(headers, rows, terminal_width())}"


def findings(outcomes: Outcomes) -> list[str]:
    """One sentence for each finding, the answer last.

    Two shares differ "beyond chance" if they are more than two standard errors of their difference apart.

    >>> healthy = Outcome(64, 1437, 360, dead=[0, 1], zero_gradient=[0, 1], accuracy=[0.1, 0.95])
    >>> sick = Outcome(64, 1437, 360, dead=[64, 64], zero_gradient=[64, 64], accuracy=[0.1, 0.1])
    >>> others = {"random_normal": healthy, "zeros_revived": healthy, "sick_control": sick}
    >>> print(findings({"zeros": healthy, **others})[-1])
    Answer: yes. With a bias of zero the model did no worse than with a random one. (One seed.)
    """
    tested = {name: outcome for name, outcome in outcomes.items() if name not in (REVIVED, CONTROL)}
    lines, disadvantages = [], []
    for measure in (_BORN_DEAD, _DEAD, _ACCURACY):
        worse, better = _compare(tested, measure)
        shares = ", ".join(f"{name} {measure.share(outcome):.1%}" for name, outcome in tested.items())
        lines.append(f"{measure.name}: {shares}. {_difference(worse, better)}")
        disadvantages += [f"{measure.name.lower()}, against {' and '.join(worse)}"] if worse else []
    valid = _control_has_more_dead(outcomes)
    return [
        *lines,
        *_deaths(tested),
        *_blocked(tested),
        *_harm(outcomes[SUBJECT], outcomes[REVIVED]),
        _control(outcomes[CONTROL], valid),
        _answer(valid, disadvantages),
    ]


def _compare(tested: Outcomes, measure: _Measure) -> tuple[list[str], list[str]]:
    """The initialisers that a zero bias is worse than, and those that it is better than, beyond chance."""
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
    """Which initialisers had more dead neurons after training than before, beyond chance."""
    died = [
        name
        for name, o in tested.items()
        if o.dead[-1] > o.dead[0] and _differ(o.dead[-1] / o.neurons, o.dead[0] / o.neurons, o.neurons)
    ]
    if not died:
        return []
    where = "whatever the initial bias" if len(died) == len(tested) else f"with {' and '.join(died)}"
    return [f"Training itself killed neurons, {where}."]


def _blocked(tested: Outcomes) -> list[str]:
    blocked = {name: o.zero_gradient[-1] - o.dead[-1] for name, o in tested.items()}
    found = ", ".join(f"{name} {count:,}" for name, count in blocked.items() if count)
    return [f"Active but without gradient after training: {found}."] if found else []


def _harm(dying: Outcome, revived: Outcome) -> list[str]:
    """Whether the dead neurons cost accuracy: the same training is compared with one in which they were brought back."""
    if not dying.dead[-1]:
        return []
    question = f"Are {_DEAD.share(dying):.1%} dead bad here?"
    if revived.dead[-1] >= dying.dead[-1]:
        return [f"{question} Not known: the callback Revive has brought none back so far."]
    with_dead, without = _ACCURACY.share(dying), _ACCURACY.share(revived)
    worse = without > with_dead and _differ(without, with_dead, dying.validated)
    return [
        f"{question} {'Yes' if worse else 'No'}: with the callback Revive the same training ends with "
        f"{_DEAD.share(revived):.1%} dead and an accuracy of {without:.1%}, {'' if worse else 'not '}better beyond chance."
    ]


def _control_has_more_dead(outcomes: Outcomes) -> bool:
    """Whether the control has more dead neurons than a zero bias at initialisation, beyond chance, as it should."""
    control, subject = outcomes[CONTROL], outcomes[SUBJECT]
    shares = control.dead[0] / control.neurons, subject.dead[0] / subject.neurons
    return shares[0] > shares[1] and _differ(*shares, control.neurons)


def _control(control: Outcome, valid: bool) -> str:
    dead = f"{control.dead[0]:,} of {control.neurons:,} dead at initialisation"
    verdict = "so dead neurons would have been seen" if valid else "although its bias should kill its neurons"
    return f"{CONTROL}: {dead}, {verdict}; accuracy {control.accuracy[-1]:.1%} after training."


def _answer(valid: bool, disadvantages: list[str]) -> str:
    if not valid:
        return "Answer: none. The control did not show that dead neurons would have been seen. (One seed.)"
    if disadvantages:
        return f"Answer: not here. A bias of zero did worse: {'; '.join(disadvantages)}. (One seed.)"
    return "Answer: yes. With a bias of zero the model did no worse than with a random one. (One seed.)"
