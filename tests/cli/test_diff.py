"""`relu-probe diff` and the comparison of two reports."""

import json

import pytest

from relu_probe import LayerReport, Report
from relu_probe.cli.main import main
from relu_probe.report.comparison import LayerChange, compare
from relu_probe.report.export import write_json

pytestmark = pytest.mark.once


def layer(active, samples=10, **more):
    return LayerReport(samples, samples, active=active, **more)


@pytest.fixture
def diff(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(before, after):
        for name, layers in (("old.json", before), ("new.json", after)):
            write_json(Report(layers).to_dict(), name)
        code = main(["diff", "old.json", "new.json"])
        return code, *capsys.readouterr()

    return run


def test_a_row_for_each_layer(diff):
    before = {"conv": layer([0, 1, 2, 3]), "gone": layer([1]), "same": layer([5], 20)}
    after = {"conv": layer([0, 0, 0, 3], 1_000), "same": layer([5], 20), "new": layer([0])}
    code, out, err = diff(before, after)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "dead neurons: old.json -> new.json"
    assert [line.split() for line in out.splitlines()[4:]] == [
        ["conv", "1", "25.0%", "3", "75.0%", "+50.0", "points", "10", "1,000"],
        ["gone", "0", "0.0%", "-", "-", "10", "-"],
        ["same", "0", "0.0%", "0", "0.0%", "+0.0", "points", "20", "20"],
        ["new", "-", "1", "100.0%", "-", "-", "10"],
    ]


def test_neurons_with_nan_are_in_neither_share(diff):
    """The planted mistake, "1 of 4 dead (100.0 %)", takes the number of all neurons for that of those judged."""
    sick, lost = layer([0, 0, 1, 2], nan=[False, True, True, True]), layer([0] * 4, nan=[True] * 4)
    out = diff({"conv": layer([0, 1, 2, 3])}, {"conv": sick})[1]
    assert out.splitlines()[4].split() == ["conv", "1", "25.0%", "1", "100.0%", "+75.0", "points", "10", "10"]
    assert out.splitlines()[5:] == ["conv: NaN after at 3 neurons, neither active nor dead."]
    out = diff({"conv": lost}, {"conv": sick})[1]
    assert out.splitlines()[4].split() == ["conv", "NaN", "1", "100.0%", "-", "10", "10"]
    assert out.splitlines()[5] == "conv: NaN before at 4 neurons, neither active nor dead."


def test_files_that_are_no_reports(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_json(Report().to_dict(), "empty.json")
    (tmp_path / "odd.json").write_text("[" * 100_000)
    (tmp_path / "several.json").write_text(json.dumps([Report().to_dict()] * 9))
    assert main(["diff", "empty.json", "empty.json"]) == 0
    capsys.readouterr()
    for name, why in (
        ("none.json", "none.json: no such file; expected a report"),
        ("odd.json", "odd.json holds no report"),
        ("several.json", "several.json holds no report: found a list of 9; expected a single one"),
    ):
        assert main(["diff", "empty.json", name]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"relu-probe diff: {why}")
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (layer([1] * 20), layer([0] + [1] * 19), ""),  # exactly the tolerance
        (
            layer([1] * 20),
            layer([0] * 2 + [1] * 18),
            "conv: from 0 of 20 dead (0.0 %, N = 10) to 2 of 20 dead (10.0 %, N = 10)",
        ),
        (layer([0] * 4), layer([0] * 4), ""),
        (
            layer([0] * 99 + [1], 7),
            layer([0] * 100),
            "conv: the whole layer died, from 99 of 100 dead (99.0 %, N = 7) to 100 of",
        ),
        (layer([0] * 2), layer([1] * 2), ""),
        (
            layer([1] * 2),
            layer([0, 1], nan=[True, False]),
            "conv: NaN at 1 of 2 neurons, 0 of 2 dead (0.0 %, N = 10) before",
        ),
        (layer([1] * 2), layer([0, 0], nan=[True, True]), "conv: NaN at 2 of 2 neurons"),
        (
            layer([0, 1, 1, 1]),
            layer([0, 0, 1, 1], nan=[False, True, True, True]),
            "conv: from 1 of 4 dead (25.0 %, N = 10) to 1 of 1 dead, 3 NaN (100.0 %, N = 10)",
        ),
        (
            layer([0], nan=[True]),
            layer([0]),
            "conv: the whole layer died, from 0 of 0 dead, 1 NaN (N = 10) to 1 of 1 dead",
        ),
        (None, layer([0]), ""),
        (layer([1]), None, ""),
    ],
)
def test_what_counts_as_worse(before, after, text):
    found = LayerChange("conv", before, after).worsened(0.05)
    assert found.startswith(text)
    assert bool(found) == bool(text)


def test_layers_that_one_report_did_not_measure():
    changes = compare(Report({"a": layer([1])}), Report({"a": LayerReport(0, 0, active=[0]), "b": layer([0])}))
    assert [(change.name, change.before is None, change.after is None) for change in changes] == [
        ("a", False, True),
        ("b", True, False),
    ]
