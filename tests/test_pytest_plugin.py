"""The pytest plugin, loaded by its entry point in a pytest process of its own."""

import json
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from commands import pytest_in, relu_probe
from keras_version import TRUST

from relu_probe import Report

EXAMPLE = Path(__file__).with_name("example_test_model.py")
README = Path(__file__).parents[1] / "README.md"

FAILING = """
import numpy as np
import tensorflow as tf

def dead_and_alive():
    bias = tf.keras.initializers.Constant([-100.0, 1.0])
    hidden = tf.keras.layers.Dense(2, "relu", kernel_initializer="ones", bias_initializer=bias, name="hidden")
    return tf.keras.Sequential([tf.keras.Input((3,)), hidden])

def test_fails(assert_alive):
    print("looked at first")
    assert_alive(dead_and_alive(), np.ones((20, 3), "f"), max_samples=10)

def test_passes(assert_alive):
    for _ in range(2):
        assert_alive(dead_and_alive(), np.ones((20, 3), "f"), max_dead=0.5, layers="hid*", batch_size=8)
"""


@pytest.mark.once
def test_the_entry_point_is_registered():
    assert [point.value for point in entry_points(group="pytest11", name="relu_probe")] == ["relu_probe.pytest_plugin"]


@pytest.mark.once
def test_loading_it_imports_no_tensorflow(tmp_path):
    proof = "import sys\ndef test_light(): assert 'relu_probe.pytest_plugin' in sys.modules and 'tensorflow' not in sys.modules"
    (tmp_path / "test_light.py").write_text(proof)
    assert pytest_in(tmp_path).returncode == 0
    (tmp_path / "test_light.py").write_text(f"import relu_probe.measuring.measure\n{proof}")
    assert pytest_in(tmp_path).returncode == 1


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plugin")
    (directory / "test_failing.py").write_text(FAILING)
    return directory, pytest_in(directory, "-n", 2, "--relu-probe-json", "reports/of_tests")


@pytest.mark.once
def test_a_failing_test_says_why_and_shows_its_report(failing):
    _, result = failing
    assert result.returncode == 1, result.stderr
    text = "hidden: 1 of 2 dead (limit 0 %) on 10 samples; neuron 0"
    assert f"E       AssertionError: {text}" in result.stdout
    section = result.stdout.split("- Captured relu_probe call -")[1]
    assert 'ReLU report (measure): "dead" is never active on the N samples' in section
    assert "1 failed, 1 passed" in result.stdout
    assert "limits.py" not in result.stdout  # the traceback ends at the test's own line


@pytest.mark.once
def test_each_report_is_written_by_xdist_workers_too(failing):
    directory, _ = failing
    written = {
        path.name: Report.from_dict(json.loads(path.read_text())) for path in directory.glob("reports/of_tests/*")
    }
    assert sorted(name.rsplit("-", 2)[0] + name[-7:] for name in written) == [
        "test_failing.py-test_fails-0.json",
        "test_failing.py-test_passes-0.json",
        "test_failing.py-test_passes-1.json",
    ]
    assert sorted(report.samples for report in written.values()) == [10, 20, 20]
    assert all(report["hidden"].dead.tolist() == [True, False] for report in written.values())


@pytest.mark.once
def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    result = pytest_in(tmp_path, "--relu-probe-json", "file")
    assert result.returncode == 4
    text = "ERROR: --relu-probe-json file: File exists; expected a directory, or a path for a new one."
    assert text in result.stderr


def test_the_example_of_the_readme(tmp_path):
    (tmp_path / "test_model.py").write_text(EXAMPLE.read_text())
    result = pytest_in(tmp_path, "-W", "error", "-W", "ignore::DeprecationWarning")
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


CI_STEP = "relu-probe check model.keras --data validation.npz --max-dead 0.05 --json report.json"


def test_the_ci_step_of_the_readme(tmp_path):
    import tensorflow as tf

    x, y, L = np.ones((9, 3), "f"), np.ones((9, 1), "f"), tf.keras.layers
    model = tf.keras.Sequential([tf.keras.Input((3,)), L.Dense(4, "relu", kernel_initializer="ones"), L.Dense(1)])
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "validation.npz", x=x, y=y)
    result = relu_probe(*CI_STEP.split()[1:], *TRUST, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "report.json").exists()


def test_the_readme_shows_the_command_as_it_is_run():
    assert f"`{CI_STEP}` checks a saved model" in README.read_text()
