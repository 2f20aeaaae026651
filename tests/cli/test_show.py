"""`relu-probe show`: a file of reports in the terminal and as a web page."""

import json
import os
import pty
import re
from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
import page
import pytest
from commands import options_in_help, relu_probe
from html_cells import Cells
from pictures import life_picture
from PIL import Image

from relu_probe import LayerReport, Report, history
from relu_probe.cli.main import main
from relu_probe.cli.web_page import web_page

pytestmark = pytest.mark.once

EVIL = '"><script>document.title = "run"</script><img src=x onerror=alert(1)>'
NEURONS = {"healthy": 6, "dying": 4, EVIL: 3}


def training():
    """The reports of five epochs: "dying" loses its neurons from epoch 2 on."""
    reports = []
    for epoch in range(5):
        active = {name: np.arange(1, neurons + 1) for name, neurons in NEURONS.items()}
        active["dying"][: 2 * max(0, epoch - 1)] = 0
        layers = {name: LayerReport(8, 8, counts, counts // 2) for name, counts in active.items()}
        reports.append(Report(layers, epoch=epoch, source="train", unseen={"lstm": "in a loop"}))
    return reports


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The working directory, with a file of one report and one of five."""
    monkeypatch.chdir(tmp_path)
    dicts = [report.to_dict() for report in training()]
    (tmp_path / "reports.json").write_text(json.dumps(dicts))
    (tmp_path / "report.json").write_text(json.dumps(dicts[-1]))
    return tmp_path


HEADLINE = "30.8 % of 13 ReLU neurons dead, worst dying (100 %{}); not counted: lstm (in a loop)"


def test_one_report(files):
    result = relu_probe("show", "report.json", cwd=files)
    newest = training()[-1]
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{HEADLINE.format('')}\n\n{newest}\n"


def test_several_reports_and_a_page(files):
    result = relu_probe("show", "reports.json", "--html", "page.html", cwd=files)
    reports = training()
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{HEADLINE.format(', since epoch 2')}\n\n{history(reports)}\n\n{reports[-1]}\n"
    assert (files / "page.html").read_text() == web_page(reports)
    assert options_in_help("show", files) == {"--html"}


@pytest.mark.parametrize(("dead", "colour"), [(0, "\x1b[32m"), (1, "\x1b[31m")])
def test_colours_on_a_terminal(files, dead, colour):
    layer = LayerReport(8, 8, np.arange(2) + 1 - dead)
    (files / "report.json").write_text(json.dumps(Report({"hidden": layer}).to_dict()))
    ours, theirs = pty.openpty()
    result = relu_probe("show", "report.json", cwd=files, stdout=theirs)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert (result.returncode, result.stderr) == (0, "")
    assert shown.startswith(colour)
    assert shown.count("\x1b") == 2  # the table has no colour


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_width_of_the_terminal_is_kept(files, columns, monkeypatch, capsys):
    monkeypatch.setattr("relu_probe.report.report.terminal_width", lambda: columns)
    monkeypatch.setattr("relu_probe.report.history.terminal_width", lambda: columns)
    assert main(["show", "reports.json"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines()[1:])) <= columns


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[]", "report.json holds no report: the list is empty. Expected a file that relu-probe check --json wrote."),
        ("[[]]", "report.json holds no report: found 'list'; expected what Report.to_dict() gives"),
        ("{}", "report.json holds no report: found 'no schema'; expected what"),
        ('{"\x1b[2J', "report.json holds no report: Invalid control character at: line 1 column 3 (char 2). Expected"),
        ("[" * 100_000, "report.json holds no report: "),
        ("\udc89PNG", "report.json holds no text; expected a file that relu-probe check --json wrote."),
        (None, "report.json: no such file; expected a report that relu-probe check --json wrote."),
    ],
)
def test_files_that_are_no_reports(files, content, text, capsys):
    (files / "report.json").unlink()
    if content is not None:
        (files / "report.json").write_text(content, errors="surrogateescape")
    refused(["report.json"], text, capsys)


def refused(arguments, text, capsys):
    """Asserts exit code 2, and one line on stderr that begins with `text`."""
    assert main(["show", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith(f"relu-probe show: {text}")
    assert "\x1b" not in err


@pytest.mark.parametrize("value", [[], {"a": 1}, "x", -1, True, 1e308, 10**30])
@pytest.mark.parametrize("field", ["died", "revived", "epoch", "last_step", "samples", "positions"])
def test_damaged_numbers(files, field, value, capsys):
    data = training()[-1].to_dict()
    (data if field in data else data["layers"]["dying"])[field] = value
    (files / "report.json").write_text(json.dumps(data))
    if (field, value) == ("epoch", -1):
        assert main(["show", "report.json"]) == 0
    else:
        refused(["report.json"], "report.json holds no report: ", capsys)


def test_the_largest_numbers_that_are_read(files):
    reports = [Report({"a": LayerReport(8, 8, [1, count])}, epoch=2**31 - 2 + i) for i, count in enumerate((1, 0))]
    (files / "report.json").write_text(json.dumps([{**one.to_dict(), "last_step": 2**63 - 1} for one in reports]))
    assert main(["show", "report.json", "--html", "page.html"]) == 0


def test_reports_of_different_models(files, capsys):
    dicts = [Report({"a": LayerReport(8, 8, [1] * neurons)}).to_dict() for neurons in (1, 2)]
    (files / "report.json").write_text(json.dumps(dicts))
    refused(["report.json"], "one report has 2 neurons in a layer and another 1; expected reports of one", capsys)


@pytest.mark.parametrize(
    ("page_file", "text"),
    [
        ("no/where.html", "no/where.html cannot be written; expected a file in a directory that exists."),
        ("report.json", "report.json is given twice; expected a different file for each. Nothing was overwritten."),
        ("/dev/null", "/dev/null is no regular file; expected the path of a file."),
    ],
)
def test_pages_that_cannot_be_written(files, page_file, text, capsys):
    before = (files / "report.json").read_text()
    refused(["report.json", "--html", page_file], text, capsys)
    assert (files / "report.json").read_text() == before


def test_text_from_the_file_gives_no_commands_to_the_terminal(files, capsys):
    report = Report({"a\x1b[2J": training()[0]["healthy"]}, source="\x1b[2J", incomplete="\x1b[2J")
    (files / "report.json").write_text(json.dumps(report.to_dict()))
    assert main(["show", "report.json", "--html", "page.html"]) == 0
    for text in (capsys.readouterr().out, (files / "page.html").read_text()):
        assert "\x1b" not in text
        assert "\\x1b[2J" in text


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_tables_of_the_page_are_those_of_the_terminal():
    reports = training()
    found, newest = history(reports), reports[-1]
    shown = [" ".join(row).split() for row in Cells(web_page(reports)).rows]
    for printed in (str(found), found.table(), str(newest)):
        rows = [line.split() for line in printed.splitlines() if line.split()[0] in ("healthy", "dying", "total")]
        assert len(rows) > 1
        assert all(row in shown for row in rows)


def tags_of_the_page(reports):
    return set(Cells(web_page(reports)).tags)


def test_names_from_the_file_show_as_text(monkeypatch):
    reports = training()
    assert "script" not in tags_of_the_page(reports)
    assert EVIL in Cells(web_page(reports)).text
    monkeypatch.setattr("relu_probe.cli.web_page.escape", lambda text: text)  # the planted mistake
    assert "script" in tags_of_the_page(reports)


def test_the_life_of_each_neuron_has_an_axis_of_epochs():
    reports = training()
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', web_page(reports))
    _, *lives = (np.asarray(Image.open(BytesIO(b64decode(source)))) for source in sources)
    for name, life in zip(NEURONS, lives, strict=True):
        np.testing.assert_array_equal(life, life_picture(name, reports))
    later = [replace(report, epoch=report.epoch + 100) for report in reports]
    assert not np.array_equal(lives[0], life_picture("healthy", later))  # the planted mistake: other epochs


def test_a_page_without_anything_to_draw():
    assert "not measured" in web_page([Report({"a": LayerReport(0, 0, [0, 0])})])
    assert "nothing was measured" in web_page([Report.empty()])


@page.needs_chromium
def test_the_page_in_a_browser(tmp_path):
    """Every picture shows, nothing is loaded or run, and nothing is wider than the window."""
    file = tmp_path / "page.html"
    file.write_text(web_page(training()))
    with page.chromium(width=1000) as driver:
        driver.get(file.as_uri())
        widths = driver.execute_script("return [...document.images].map((image) => image.naturalWidth)")
        assert len(widths) == 1 + len(NEURONS)  # the overview, and the life of each layer
        assert all(widths)
        assert driver.title == HEADLINE.format(", since epoch 2")
        assert driver.execute_script("return document.body.scrollWidth <= window.innerWidth")
        assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
        assert driver.get_log("browser") == []
