"""The deaths of a layer in words, against planted deaths."""

import numpy as np
import pytest

from relu_probe import LayerReport, Report, history
from relu_probe.report.fit_reports import FitReports
from relu_probe.report.summary import death_clauses, end_of_fit

pytestmark = pytest.mark.once

STEPS = 10  # in an epoch


def reports(*epochs, nan=None):
    """Returns reports of one layer: for each epoch the last active step of each neuron, which counts as dead before it."""
    made = []
    for epoch, last in enumerate(epochs):
        active = [int(step >= epoch * STEPS) for step in last]
        layer = LayerReport(STEPS, STEPS, active, last_active=last, nan=nan)
        made.append(Report({"hidden": layer}, epoch, "train", last_step=(epoch + 1) * STEPS - 1))
    return made


def said(found):
    return "; ".join(death_clauses(found[-1].layers, FitReports.from_reports(found).deaths()))


def test_the_sentence_names_the_layer_the_epoch_and_the_step():
    found = reports([9, 9, 9], [13, 19, 19], [13, 19, 29])
    assert said(found) == "hidden: 2 of 3 dead; first deaths in epoch 1 (step 13)"
    assert "epoch 1, step 13" in str(history(found))  # the table says the same


def test_neurons_that_were_never_active_died_at_no_known_time():
    assert said(reports([-1, 9], [-1, 19])) == "hidden: 1 of 2 dead, all never seen active"
    later = reports([-1, 9, 9], [-1, 12, 19], [-1, 12, 29])
    assert said(later) == "hidden: 2 of 3 dead, 1 never seen active; next deaths in epoch 1 (step 12)"


HALVES = [([13, 21, 25, 39], 2), ([13, 21, 31, 39], 2), ([13, 31, 32, 39], 3), ([13, 14, 31, 39], None), ([13], None)]


@pytest.mark.parametrize("mistaken", [np.mean, np.max, lambda epochs: sorted(epochs)[len(epochs) // 2]])
def test_other_dates_would_be_found(mistaken):
    """The planted mistakes: the mean epoch, the last one, and the one by which more than half had died."""
    assert any(int(mistaken([step // STEPS for step in last])) != (half or 1) for last, half in HALVES)


@pytest.mark.parametrize(("last", "half"), HALVES)
def test_the_epoch_by_which_half_of_the_dead_had_died(last, half):
    """One early death must not pass for the date of all: a reader who looks at the first one only is misled."""
    last = [*last, 50, -1]  # one that is alive, and one that was never active
    found = reports(*(np.minimum(last, 9 + 10 * epoch).tolist() for epoch in range(6)))
    dead, dated = len(last) - 1, "" if half is None else f", half by epoch {half}"
    expected = f"hidden: {dead} of {len(last)} dead, 1 never seen active; next deaths in epoch 1 (step 13){dated}"
    assert said(found) == expected
    deaths = FitReports.from_reports(found).deaths()
    since = "since epoch 1" + ("" if half is None else f", half by epoch {half}")
    assert end_of_fit(found[-1].layers, {}, deaths).endswith(f"%, {since})")


def test_without_steps_the_epoch_is_that_of_the_report():
    counts = [[3, 3], [0, 3]]
    found = [Report({"hidden": LayerReport(9, 9, active)}, epoch) for epoch, active in enumerate(counts)]
    assert said(found) == "hidden: 1 of 2 dead; first deaths in epoch 1"


def test_what_is_alive_or_unknown_is_not_dead():
    assert said(reports([9, 9])) == "none of 2 ReLU neurons dead"
    assert said(reports([9, 9], [9, 19], [9, 29], nan=[True, False])) == "none of 1 ReLU neuron dead; NaN at 1 more"
    assert said(reports([9, 9], nan=[True, True])) == "NaN at 2 of 2 ReLU neurons"
    assert said([Report({"hidden": LayerReport(0, 0, [])}, 0)]) == "nothing was measured"
    revived = reports([9, 9], [12, 19], [25, 29])
    assert said(revived) == "none of 2 ReLU neurons dead"
