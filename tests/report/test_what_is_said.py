"""What is said is what was measured: every number in the texts of 196 random reports is parsed back and equals the report's.

tests/diagnosis/test_what_is_said.py does the same with random models, and with the text of their diagnosis.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from report_strategies import reports
from report_text import assert_history_is_said, assert_said, wrong_rows

from relu_probe import LayerReport, Report


@settings(max_examples=196, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(reports, reports)
def test_of_random_reports(first, second):
    assert_said(first)
    assert_history_is_said([first, second])


@pytest.mark.once
@pytest.mark.parametrize("mistake", ["of all neurons", "another layer", "cut"])
def test_the_check_rejects(mistake):
    """The planted mistakes: a share of all neurons instead of those judged, swapped rows, a number without its end."""
    sick = LayerReport(16_384, 16_384, [0, 9, 9], nan=[False, False, True])
    report = Report({"a": sick, "b": LayerReport(16_384, 16_384, [4, 9, 9])})
    swap = {"of all neurons": ("50.0%", "33.3%"), "another layer": (">1<", ">0<"), "cut": ("16,384", "16,3")}[mistake]
    html = report._repr_html_()
    assert wrong_rows(html, report) == []
    assert swap[0] in html
    assert wrong_rows(html.replace(*swap), report) != []
