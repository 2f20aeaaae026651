"""The pytest plugin: the fixture `assert_alive` and its option `--relu-probe-json`. Loading it does not import TensorFlow."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

OPTION = "--relu-probe-json"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option `--relu-probe-json`."""
    group = parser.getgroup("relu_probe", "relu_probe: dead ReLUs")
    group.addoption(
        OPTION, metavar="DIR", default=None, help="write each report of the fixture assert_alive to DIR, as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Makes the directory for the reports.

    Raises:
        pytest.UsageError: it cannot be made.
    """
    if (name := config.getoption(OPTION)) is None:
        return
    directory = Path(config.invocation_params.dir, name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise pytest.UsageError(
            f"{OPTION} {name}: {error.strerror}; expected a directory, or a path for a new one."
        ) from None
    config.option.relu_probe_json = str(directory)  # absolute: xdist's workers may run elsewhere


@pytest.fixture
def assert_alive(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A function that measures a model and asserts on its `Report`, which it returns.

    `assert_alive(model, data, max_dead=0.0, max_zero_gradient=None, layers=None, require_all=False)` takes the arguments `batch_size` and
    `max_samples` of `relu_probe.measure` too. A failing test shows the report in a section of its own.
    """
    written: list[Path] = []

    def measure_and_assert(
        model: Any,
        data: Any,
        *,
        layers: Any = None,
        batch_size: int = 32,
        max_samples: int | None = None,
        **limits: Any,
    ) -> Any:
        __tracebackhide__ = True
        from relu_probe.measuring.measure import measure

        report = measure(model, data, layers=layers, batch_size=batch_size, max_samples=max_samples)
        request.node.add_report_section("call", "relu_probe", f"{report}\n")
        if directory := request.config.getoption(OPTION):
            written.append(_write_report(report, Path(directory), request.node.nodeid, len(written)))
        return report.assert_alive(**limits)

    return measure_and_assert


def _write_report(report: Any, directory: Path, test: str, number: int) -> Path:
    from relu_probe.report.export import write_json

    # The digest tells two tests apart whose readable names are the same.
    readable = re.sub(r"[^\w.-]+", "-", test)[-100:].strip("-")
    digest = hashlib.sha256(test.encode()).hexdigest()[:8]
    path = directory / f"{readable}-{digest}-{number}.json"
    write_json(report.to_dict(), path)
    return path
