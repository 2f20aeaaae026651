"""The installed package: a light import, the public names, and the wheel with its types and its page on a package index."""

import pydoc
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from commands import python_tool

import relu_probe

pytestmark = pytest.mark.once
PROOF = "import sys; assert 'tensorflow' not in sys.modules, 'TensorFlow was imported'"
ROOT = Path(__file__).parents[1]


def run(code):
    return subprocess.run([sys.executable, "-c", f"{code}; {PROOF}"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "import relu_probe",
        "from relu_probe import Report, LayerReport; str(Report.empty())",
        "from relu_probe import History, LayerHistory, LossJump, history; history([])",
    ],
)
def test_importing_the_package_and_its_reports_imports_no_tensorflow(code):
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_that_test_can_fail():
    result = run("from relu_probe import ReluProbe")
    assert result.returncode == 1
    assert "TensorFlow was imported" in result.stderr


TENSORFLOW_FREE = [
    *("validation", "layer_names", "weak_id_dict", "instance_patch", "error_policy"),
    *("foreign_text", "memory", "replaced_file", "wording"),
]
TENSORFLOW_NEEDED = ["callback_list", "distributed", "tensorflow_private"]


def test_which_files_of_utils_import_tensorflow():
    """`report/` may import the files that do not."""
    files = {path.stem for path in (ROOT / "relu_probe" / "utils").glob("*.py")} - {"__init__"}
    assert files == {*TENSORFLOW_FREE, *TENSORFLOW_NEEDED}
    result = run(f"import {', '.join(f'relu_probe.utils.{name}' for name in TENSORFLOW_FREE)}")
    assert result.returncode == 0, result.stderr
    for name in TENSORFLOW_NEEDED:
        assert "\nimport tensorflow as tf\n" in (ROOT / "relu_probe" / "utils" / f"{name}.py").read_text()


def test_an_unknown_name_is_an_error_that_lists_the_public_names():
    with pytest.raises(
        AttributeError, match="module 'relu_probe' has no attribute 'Probe'; it has ReluProbe, measure, "
    ):
        relu_probe.Probe  # noqa: B018


def test_the_public_names():
    assert set(relu_probe.__all__) <= set(dir(relu_probe))
    assert set(relu_probe.__all__) == set(relu_probe._MODULES)
    for name in relu_probe.__all__:
        assert getattr(relu_probe, name).__name__ == name
        assert getattr(relu_probe, name).__doc__


def test_help_lists_the_public_names_first():
    page = pydoc.plain(pydoc.render_doc(relu_probe))
    head = page.partition("PACKAGE CONTENTS")[0]
    assert [name for name in relu_probe.__all__ if not re.search(rf"\b{name}\b", head)] == []
    assert head.index("The public names") < head.index("All modules of the package are private")


# --- the wheel --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this source tree, built without network."""
    directory = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(directory)]
    result = python_tool([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], directory)
    assert result.returncode == 0, result.stderr
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A directory with nothing but the package, as installed from the wheel."""
    directory = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-index", "--target", str(directory)]
    result = python_tool([sys.executable, "-m", "pip", "install", *options, str(wheel)], directory)
    assert result.returncode == 0, result.stderr
    return directory


def test_the_wheel_has_the_package_and_its_marker_of_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "relu_probe/py.typed" in names
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "relu_probe").rglob("*.py")}
    assert modules <= set(names)
    assert {name.partition("/")[0] for name in names} == {"relu_probe", "relu_probe-0.1.0.dist-info"}


def relative_links(text):
    """Markdown links and images, and HTML's, that lead to neither an address nor a heading of the page."""
    targets = re.findall(r"\]\(([^)]*)\)", text) + re.findall(r"(?:href|src)=\"([^\"]*)\"", text)
    return [target for target in targets if not target.startswith(("https:", "http:", "#"))]


def test_the_page_on_a_package_index_has_no_relative_links(wheel):
    """There the files around the README are missing. Nothing but links is changed."""
    readme = (ROOT / "README.md").read_text()
    with zipfile.ZipFile(wheel) as archive:
        page = archive.read("relu_probe-0.1.0.dist-info/METADATA").decode().partition("\n\n")[2]
    assert relative_links(page) == []
    assert re.findall(r"^```.*?^```", page, re.DOTALL | re.MULTILINE) == re.findall(
        r"^```.*?^```", readme, re.DOTALL | re.MULTILINE
    )
    assert len(page) > 0.95 * len(readme)


def test_that_relative_links_are_found():
    text = '[a](b.md) ![c](d/e.png) [f](#g) [h](https://i.example) <img src="j.png">'
    assert relative_links(text) == ["b.md", "d/e.png", "j.png"]


USER = """
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relu_probe import Advice, Diagnosis, History, LayerDiagnosis, LayerHistory, LayerReport, LossJump, ReluProbe, Report
from relu_probe import LayerRevival, Revival, Revive, Shrunk, Watch, diagnose, history, measure, revive, shrink, watch

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]
Rates = NDArray[np.float64]


def train(model: Any, x: NDArray[np.float32]) -> History:
    probe = ReluProbe("logs", (x, x), freq=2, name="mine", layers="conv*", strict=True, activation_sum=True, at_start=True)
    probe = ReluProbe(max_dead=0.5, max_zero_gradient=None, patience=1, on_limit="raise", keep=3, verbose=0, layer_logs=True)
    probe = ReluProbe(images=False, text=False, append=True)
    newest: Report | None = probe.report
    reports: list[Report] = probe.reports
    jumps: list[LossJump] = probe.loss_jumps
    step: int = jumps[0].step
    cure = Revive(lambda epoch: x, every=2, start=1, stop=None, method="redo", fire=0.9, validation=(x, x), seed=0)
    revivals: dict[int, Revival] = cure.revivals
    return probe.history


def count(model: Any, x: NDArray[np.float32]) -> Report:
    report: Report = measure(model, (x, x), batch_size=8, max_samples=10, layers=["conv*"], verbose=1)
    with watch(model, layers="conv*", log_dir="logs", name="mine") as w:
        entered: Watch = w
        watched: Report = w.end_epoch(0)
        latest: Report = w.report(epoch=1, reset=True)
        epochs: list[Report] = w.reports
        deaths: History = w.history
    total: Report = report + watched
    of_several: Report | int = sum([report, watched])
    chosen: Report = total.select("conv*")
    return chosen.assert_alive(0.05, max_zero_gradient=0.1, layers="hidden", require_all=True)


def read(report: Report) -> None:
    mapping: Mapping[str, LayerReport] = report
    names: list[str] = [name for name, layer in report.items() if layer.dead_fraction > 0.5]
    number: int = len(report)
    fractions: list[float] = [report.dead_fraction, report.max_dead_fraction, report.zero_gradient_fraction]
    unseen: Mapping[str, str] = report.unseen
    never_called: tuple[str, ...] = report.never_called
    epoch: int | None = report.epoch
    text: str = str(report) + report.table(tau=0.1, width=80)
    stored: Report = Report.from_dict(report.to_dict())
    layer: LayerReport = report["hidden"]
    samples: int = layer.samples
    active: Counts = layer.active
    gradient: Counts | None = layer.with_gradient
    dead: Mask = layer.dead | layer.dormant(0.1)
    blocked: Mask | None = layer.blocked
    rate: Rates = layer.activation_rate


def explain(model: Any, x: NDArray[np.float32], probe: ReluProbe) -> None:
    found: Diagnosis = diagnose(model, x, batch_size=8, bounds=(0, 1), confidence=0.9, probe=probe, verbose=0)
    cause: LayerDiagnosis = found.layers["hidden"]
    margin: Rates = cause.margin
    root: str | None = found.first_sick_layer
    advice: tuple[Advice, ...] = found.advice
    kind: str = advice[0].kind
    about: Mask = advice[0].neurons["hidden"]
    lives: History = history(probe.reports)
    life: LayerHistory = lives["hidden"]
    since: Counts = life.dead_since


def cure(model: Any, x: NDArray[np.float32]) -> None:
    revival: Revival = revive(model, (x, x), layers="hidden", method="cause", fire=0.9, validation=(x, x), seed=0)
    cured: LayerRevival = revival.layers["hidden"]
    neurons: NDArray[np.intp] = cured.neurons
    change: float | None = revival.validation_change
    revival.undo()
    shrunk: Shrunk = shrink(model, x, bounds=(0, 1), layers=["hidden"], remove="certified", batch_size=8)
    removed: NDArray[np.intp] = shrunk.removed["hidden"]
"""

WRONG = {
    "a: str = measure(0, 0)": 'expression has type "Report", variable has type "str"',
    "measure(0, 0).dead_fractions": '"Report" has no attribute "dead_fractions"',
    'b: int = measure(0, 0)["hidden"].active': 'expression has type "ndarray[',
    "ReluProbe(freqs=2)": 'Unexpected keyword argument "freqs"',
    'ReluProbe(freq="2")': 'incompatible type "str"; expected "int"',
    "ReluProbe().report.samples": 'Item "None" of "Report | None" has no attribute "samples"',
    "with watch(0) as w: c: str = w.report()": 'expression has type "Report", variable has type "str"',
    "d: str = diagnose(0, 0).layers": 'expression has type "Mapping[str, LayerDiagnosis]", variable has type "str"',
    "history([]).reports_": '"History" has no attribute "reports_"',
    'revive(0, 0, method="reset")': 'Argument "method" to "revive" has incompatible type',
    "e: str = measure(0, 0).unseen": 'expression has type "Mapping[str, str]", variable has type "str"',
    "measure(0, 0).get(1)": 'No overload variant of "get" of "Mapping" matches argument type "int"',
    "diagnose(0, 0).advice[0].kinds": '"Advice" has no attribute "kinds"; maybe "kind"?',
    'ReluProbe(on_limit="warn")': 'Argument "on_limit" to "ReluProbe" has incompatible type',
    'shrink(0, 0, remove="all")': 'Argument "remove" to "shrink" has incompatible type',
    'Revive(0, every="2")': 'Argument "every" to "Revive" has incompatible type "str"; expected "int"',
    "from relu_probe import Reports": 'Module "relu_probe" has no attribute "Reports"',
}


@pytest.fixture
def type_check(installed, tmp_path, monkeypatch):
    """`mypy --strict` on a user's script, which sees the installed package and not this source tree."""
    monkeypatch.setenv("PYTHONPATH", str(installed))
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(installed / "cache")]

    def check(text):
        (tmp_path / "user.py").write_text(text)
        return python_tool([*command, "user.py"], tmp_path)

    return check


def test_a_users_script_is_type_checked_against_the_wheel(type_check):
    assert [name for name in relu_probe.__all__ if not re.search(rf"\b{name}\b", USER)] == []
    result = type_check(USER)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr


def test_wrong_uses_are_rejected(type_check):
    """All public names would be `Any`, and all of this right, if the types were not found."""
    names = "from relu_probe import ReluProbe, Revive, diagnose, history, measure, revive, shrink, watch\n"
    result = type_check(names + "\n".join(WRONG))
    assert result.returncode == 1
    lines = [line for line in result.stdout.splitlines() if ": error:" in line]
    for number, (code, message) in enumerate(WRONG.items(), start=2):
        (found,) = [line for line in lines if f"user.py:{number}:" in line]
        assert message in found, (code, found)
    assert len(lines) == len(WRONG)
