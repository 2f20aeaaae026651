"""The README shows the kept results, and intervals are what they are said to be."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import results
import summary

pytestmark = pytest.mark.once
README = Path(__file__).parents[3] / "README.md"


def shown_tables(text):
    """The tables with the summary's header in a Markdown text."""
    return [summary.HEADER + after.split("\n\n")[0].rstrip("\n") for after in text.split(summary.HEADER)[1:]]


def test_the_readme_shows_the_kept_results():
    table = summary.table()
    assert all(shown == table for shown in shown_tables(README.read_text()))
    wrong = table.replace("one bad step", "two bad steps")
    assert shown_tables(f"# Title\n\n{table}\n\nText.\n{wrong}\n") == [table, wrong]  # so that a difference is found


def test_the_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    means = [results.interval(values) for values in rng.normal(3, 2, (2000, 20))]
    assert np.mean([abs(mean - 3) < half for mean, half in means]) == pytest.approx(0.95, abs=0.015)
    shares = [results.share(count, 50) for count in rng.binomial(50, 0.1, 2000)]
    assert np.mean([low <= 0.1 <= high for low, high in shares]) > 0.94


def test_every_study_was_kept_with_paired_arms():
    for study in ("birth", "slots", "bad_step", "healthy"):
        arms = results.load(study)
        assert len({len(arm["error" if "error" in arm else "accuracy"]) for arm in arms.values()}) == 1
    assert len({np.shape(bins) for bins in results.load("regression").values()}) == 1
