"""The clinic: the advice, followed, cures. A fast part runs always; `--clinic` runs every case with all its seeds.

The table of all cases: `python tests/clinic/table.py`.
"""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import cases  # noqa: F401
import table
from trainings import HEALTHY, SICK, Case
from verdict import SEEDS, healthy_verdict, judge

from relu_probe.diagnosis.advice import KINDS

FAST = (
    *("kernels_of_one_sign_on_positive_inputs", "relu_output_on_negative_targets", "convolutions_on_raw_pixels"),
    *(
        "zero_kernels",
        "a_second_negative_bias_behind_the_first",
        "an_encoder_behind_stop_gradient",
        "a_dead_data_column",
    ),
)
pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:Gradients do not exist")]


def seeds(request, name):
    """The number of seeds of a case; skips a slow one without the option."""
    if request.config.getoption("--clinic"):
        return SEEDS
    if name not in FAST:
        pytest.skip("needs --clinic")
    return 1


@pytest.mark.parametrize("name", list(SICK))
def test_a_sick_training_gets_the_advice_that_cures_it(name, request):
    verdict = judge(SICK[name], seeds(request, name))
    assert (verdict.right_root, verdict.right_kinds, verdict.cured) == (True, True, True), verdict.cells()


@pytest.mark.parametrize("name", list(HEALTHY))
def test_a_healthy_training_gets_no_advice(name, request):
    verdict = healthy_verdict(HEALTHY[name], seeds(request, name))
    assert verdict.right_kinds, verdict.cells()


def test_a_treatment_that_does_not_follow_the_advice_does_not_cure():
    """The planted mistake: the untreated arm in place of the treated one."""
    case = SICK["zero_kernels"]
    assert not judge(Case(case.train, case.root, case.kinds, treat={}, reference=case.reference), 1).cured


def test_there_are_cases_enough():
    assert len(SICK) >= 40
    assert len(HEALTHY) >= 12


def test_every_kind_of_advice_is_followed_in_a_case():
    assert {kind for case in SICK.values() for kinds in case.kinds for kind in kinds.split("|")} == set(KINDS)


def test_no_reference_is_the_treated_training():
    """Where it is, the treatment closes the whole gap by construction."""
    assert all(case.reference not in (None, case.train) for case in SICK.values())


def differences(readme):
    """What the README does not say as the kept rows do: the sums, and how often each kind of advice cured."""
    rows = table.kept_rows()
    cured = table.cures(rows)
    shown = dict(re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \| [^\n]* \| ([^|\n]*) \|$", readme, re.MULTILINE))
    expected = {kinds: ", ".join(cured.get(kind, "-") for kind in re.findall(r"`(\w+)`", kinds)) for kinds in shown}
    missing = {"a kind"} if {kind for kinds in shown for kind in re.findall(r"`(\w+)`", kinds)} != set(KINDS) else set()
    wrong = {kinds for kinds, text in shown.items() if text != expected[kinds]}
    return missing | wrong | ({"sums"} if table.sums(rows) not in " ".join(readme.split()) else set())


def test_the_readme_shows_the_kept_rows():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table_of_kinds = readme[
        readme.index("| kind of advice |") : readme.index("</details>", readme.index("| kind of advice |"))
    ]
    assert differences(table_of_kinds) == set()
    assert differences(table_of_kinds.replace("sick trainings", "trainings")) == {"sums"}
    assert differences(re.sub(r"(`bias_start` .*) \d+ of", r"\1 99 of", table_of_kinds)) == {"`bias_start`"}
    assert "a kind" in differences(table_of_kinds.replace("| `cut` |", "| cut |"))
