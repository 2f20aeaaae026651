"""Faults of the log directory and of the machine: none stops the training, and each is reported once."""

import contextlib
import io
import os
import resource
import shutil
import subprocess
import sys
import warnings
from functools import cache

import harm
import pytest
import tensorflow as tf
from event_files import events
from harm import K

from relu_probe import LayerReport, ReluProbe, Report
from relu_probe.tensorboard.summaries import Summaries
from relu_probe.utils.foreign_text import shown

pytestmark = pytest.mark.any_keras


@cache
def untouched(epochs):
    return harm.fitted(harm.net(), [], epochs=epochs)


def fit(probe, *others, epochs=4):
    """Trains and returns the warnings of the probe; the trained weights are as without a probe."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        left = harm.fitted(harm.net(), [probe, *others], epochs=epochs)
    assert harm.same(left, untouched(epochs))
    return [str(w.message) for w in caught if "relu_probe" in str(w.message)]


def at(epoch, work):
    return K.callbacks.LambdaCallback(on_epoch_end=lambda now, logs: work() if now == epoch else None)


def steps(directory):
    return [step for step, _ in events(directory / "relu_probe")[0].get("dead_fraction", [])]


@contextlib.contextmanager
def unprivileged():
    """Drops root's rights in the block: to root, nothing is read-only."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@contextlib.contextmanager
def file_size(limit):
    """Simulates a full disk: no file may become larger than `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_incomplete(probe, why, epochs=4):
    """Asserts that all epochs were measured, and that the last report says what is missing."""
    assert [report.epoch for report in probe.reports] == list(range(epochs))
    assert probe.report.incomplete.startswith("logging stopped: ")
    assert why in probe.report.incomplete
    assert f"Incomplete: {probe.report.incomplete}"[:40] in str(probe.report)


def test_a_missing_directory_is_created(tmp_path):
    assert fit(ReluProbe(tmp_path / "a" / "b")) == []
    assert steps(tmp_path / "a" / "b") == [0, 1, 2, 3]


@pytest.mark.parametrize("path", ["file", "file/logs"])
def test_a_file_in_place_of_the_directory_is_an_error_at_once(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file' is a file; expected a directory, or a path that does not exist yet"):
        ReluProbe(tmp_path / path)


def test_a_directory_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with unprivileged():
        probe = ReluProbe(tmp_path / "logs")
        told = fit(probe)
        with pytest.raises(Exception, match="Permission denied"):
            fit(ReluProbe(tmp_path / "logs", strict=True))
    tmp_path.chmod(0o700)
    assert len(told) == 1
    assert told[0].startswith("relu_probe: logging stopped: Permission")
    assert told[0].endswith(" The training goes on. strict=True would raise.")
    assert_incomplete(probe, "Permission denied")


@pytest.mark.parametrize("what", ["logs", "logs/relu_probe"])
def test_a_directory_removed_during_the_fit_is_created_again(tmp_path, what):
    removed = at(1, lambda: shutil.rmtree(tmp_path / what))
    assert fit(ReluProbe(tmp_path / "logs"), removed) == []
    assert steps(tmp_path / "logs") == [2, 3]


def test_a_full_disk(tmp_path, capsys):
    probe = ReluProbe(tmp_path)
    size = {}
    fit(ReluProbe(tmp_path, name="whole", images=False), epochs=40)
    size = sum(file.stat().st_size for file in (tmp_path / "whole").iterdir())
    capsys.readouterr()
    probe = ReluProbe(tmp_path, images=False)
    with file_size(size // 2):
        told = fit(probe, epochs=40)
    assert len(told) == 1
    assert "File too large" in told[0]
    assert_incomplete(probe, "File too large", epochs=40)
    assert capsys.readouterr().out == ""  # no hint on how to open an incomplete log
    found = steps(tmp_path)
    assert 10 < len(found) < 39
    assert found == list(range(len(found)))
    with file_size(size // 2), pytest.raises(Exception, match="File too large"):
        fit(ReluProbe(tmp_path, images=False, strict=True, name="strict"), epochs=40)


def test_keras_own_callback_does_not_survive_a_full_disk(tmp_path):
    """The planted mistake: the limit on the file size works."""
    with file_size(4096), pytest.raises(tf.errors.OpError):
        fit(K.callbacks.TensorBoard(tmp_path, histogram_freq=1), epochs=40)


def test_a_terminal_that_is_closed_or_cannot_print_umlauts(tmp_path):
    for terminal in (io.StringIO(), io.TextIOWrapper(io.BytesIO(), encoding="ascii")):
        if isinstance(terminal, io.StringIO):
            terminal.close()
        with contextlib.redirect_stdout(terminal):
            assert fit(ReluProbe(tmp_path / "für")) == []


@pytest.mark.parametrize("home", ["/proc/nowhere", "/proc"], ids=["missing", "not writable"])
def test_no_home_directory(home, tmp_path):
    with pytest.raises(OSError, match="/proc"):  # not even for root
        os.makedirs(os.path.join(home, "x"))
    code = """
import numpy as np, tensorflow as tf
from relu_probe import ReluProbe
model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2, "relu"), tf.keras.layers.Dense(1)])
model.compile("sgd", "mse")
probe = ReluProbe("logs", strict=True)
model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0, callbacks=[probe])
print(probe.report.samples)
"""
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": home, "XDG_CACHE_HOME": home}
    env = {**os.environ, **paths, "MPLCONFIGDIR": ""}
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("4\n")


NAMES = [
    "../../x",
    "<script>alert(1)</script>",
    "a|b",
    "[red]x[/red]",
    "",
    "n" * 300,
    "😀é",
    "a b",
    "a\nb",
    "/etc/x",
    "..",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_layers_are_never_paths_and_never_markup(tmp_path, name):
    layer = LayerReport(4, 4, [0, 4], [0, 4])
    report = Report({name: layer, "b": layer}, 0, "train")
    writer = Summaries(str(tmp_path / "logs"), "run")
    writer.open()
    writer.write(report, 0)
    writer.close()
    assert [path.parent for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "logs" / "run"]
    found, accumulator = events(tmp_path / "logs" / "run")
    tag = f"dead_fraction/{name}"
    assert [float(value) for _, value in found[tag]] == [0.5]
    assert "<script" not in accumulator.SummaryMetadata(tag).summary_description
    assert "<script" not in str(found["report"][0][1])
    begin, _, end = shown(name).partition("...")  # a long name lacks its middle
    (row,) = [line for line in str(report).splitlines() if line.startswith(begin[:20]) and "50.0%" in line][:1]
    assert "\n" not in row
    assert end[-20:] in row


@pytest.mark.parametrize("name", NAMES)
def test_names_that_keras_allows(tmp_path, name):
    """Eager models may have almost any name; in a graph, scopes take plain names only."""
    try:
        model = harm.net(name=name, run_eagerly=True)
        model.fit(*harm.data(), verbose=0)
    except ValueError:
        pytest.skip("Keras itself refuses this name")
    probe = ReluProbe(tmp_path / "logs", strict=True)
    model.fit(*harm.data(), verbose=0, callbacks=[probe])
    assert len(probe.report.layers) == 1
    assert all(path.parent == tmp_path / "logs" / "relu_probe" for path in tmp_path.rglob("*") if path.is_file())
