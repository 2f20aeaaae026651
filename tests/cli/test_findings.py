"""The table and the sentences of the demo, from planted numbers."""

import pytest

from relu_probe.cli.findings import Outcome, findings, outcome_table

pytestmark = pytest.mark.once

NAMES = ["zeros", "random_normal", "custom_uniform", "zeros_revived", "sick_control"]
HEALTHY = Outcome(64, 1437, 360, dead=[0, 1], zero_gradient=[0, 1], accuracy=[0.1, 0.95])
REVIVED = HEALTHY._replace(dead=[0, 0], accuracy=[0.1, 0.96])
SICK = Outcome(64, 1437, 360, dead=[64, 64], zero_gradient=[64, 64], accuracy=[0.1, 0.1])
PLANTED = dict(zip(NAMES, [HEALTHY, HEALTHY, HEALTHY, REVIVED, SICK]))


def planted(**changes):
    return findings({name: PLANTED[name]._replace(**changes.get(name, {})) for name in NAMES})


def test_nothing_differs():
    assert planted() == [
        "Dead at initialisation: zeros 0.0%, random_normal 0.0%, custom_uniform 0.0%. No difference beyond chance.",
        "Dead after training: zeros 1.6%, random_normal 1.6%, custom_uniform 1.6%. No difference beyond chance.",
        "Validation accuracy: zeros 95.0%, random_normal 95.0%, custom_uniform 95.0%. No difference beyond chance.",
        "Are 1.6% dead bad here? No: with the callback Revive the same training ends with 0.0% dead and an accuracy of 96.0%, "
        "not better beyond chance.",
        "sick_control: 64 of 64 dead at initialisation, so dead neurons would have been seen; "
        "accuracy 10.0% after training.",
        "Answer: yes. With a bias of zero the model did no worse than with a random one. (One seed.)",
    ]


def test_zeros_has_more_dead_neurons():
    lines = planted(zeros={"dead": [20, 22], "zero_gradient": [20, 22]}, custom_uniform={"dead": [18, 1]})
    assert lines[0].endswith("Beyond chance, zeros is worse than random_normal.")
    assert lines[1].endswith("Beyond chance, zeros is worse than random_normal and custom_uniform.")
    assert lines[-1] == (
        "Answer: not here. A bias of zero did worse: dead at initialisation, against random_normal; "
        "dead after training, against random_normal and custom_uniform. (One seed.)"
    )


def test_zeros_is_less_accurate():
    lines = planted(zeros={"accuracy": [0.1, 0.85]})
    assert lines[2].endswith("Beyond chance, zeros is worse than random_normal and custom_uniform.")
    assert lines[-1].startswith(
        "Answer: not here. A bias of zero did worse: validation accuracy, against random_normal"
    )


def test_zeros_is_better():
    lines = planted(random_normal={"dead": [0, 30]}, custom_uniform={"accuracy": [0.1, 0.8]})
    assert lines[1].endswith("Beyond chance, zeros is better than random_normal.")
    assert lines[2].endswith("Beyond chance, zeros is better than custom_uniform.")
    assert lines[-1].startswith("Answer: yes.")


def test_zeros_is_better_and_worse():
    lines = planted(zeros={"dead": [0, 12]}, random_normal={"dead": [0, 30]})
    assert lines[1].endswith("Beyond chance, zeros is worse than custom_uniform, and better than random_normal.")
    assert lines[-1].startswith("Answer: not here.")


# 3 and 4 of 64 neurons against none are 1.76 and 2.03 standard errors.
@pytest.mark.parametrize(("dead", "beyond"), [(3, False), (4, True)])
def test_chance_is_two_standard_errors(dead, beyond):
    lines = planted(zeros={"dead": [dead, 1]})
    assert ("is worse than" in lines[0]) == beyond
    assert lines[-1].startswith("Answer: not here." if beyond else "Answer: yes.")


def test_the_control_fails():
    lines = planted(sick_control={"dead": [0, 0], "accuracy": [0.1, 0.9]})
    assert lines[-2] == (
        "sick_control: 0 of 64 dead at initialisation, although its bias should kill its neurons; "
        "accuracy 90.0% after training."
    )
    assert lines[-1] == "Answer: none. The control did not show that dead neurons would have been seen. (One seed.)"


def test_training_kills():
    died = {"dead": [0, 13]}
    some, every = planted(random_normal=died), planted(zeros=died, random_normal=died, custom_uniform=died)
    assert "Training itself killed neurons, with random_normal." in some
    assert "Training itself killed neurons, whatever the initial bias." in every
    assert not any("killed" in line for line in planted())


def test_neurons_are_blocked():
    lines = planted(zeros={"zero_gradient": [0, 3]})
    assert "Active but without gradient after training: zeros 2." in lines
    assert not any("gradient" in line for line in planted())


# 0.95 and 0.98 of 360 samples are 2.3 standard errors apart, 0.95 and 0.976 1.8.
@pytest.mark.parametrize(("accuracy", "answer"), [(0.98, "Yes"), (0.976, "No"), (0.9, "No")])
def test_whether_dead_neurons_cost_accuracy(accuracy, answer):
    (line,) = [line for line in planted(zeros_revived={"accuracy": [0.1, accuracy]}) if "dead bad here?" in line]
    assert line.startswith(f"Are 1.6% dead bad here? {answer}: ")
    assert line.endswith(f"{accuracy:.1%}, {'' if answer == 'Yes' else 'not '}better beyond chance.")


def test_without_a_comparison_the_harm_is_not_known():
    assert "Are 1.6% dead bad here? Not known: the callback Revive has brought none back so far." in planted(
        zeros_revived={"dead": [0, 1]}
    )
    assert not any("bad here" in line for line in planted(zeros={"dead": [1, 0]}))


def test_the_planted_table():
    table = outcome_table({"zeros": HEALTHY, "sick_control": SICK})
    assert table.splitlines()[-5:] == [
        "zeros                 0   0   0.0%       0   0.0%                10.0%",
        "                      1   1   1.6%       1   1.6%                95.0%",
        "-" * 71,
        "sick_control          0  64 100.0%      64 100.0%                10.0%",
        "                      1  64 100.0%      64 100.0%                10.0%",
    ]
