"""Event files after SIGKILL: every epoch that ended is readable, and a resumed fit continues without gaps or repeats."""

import contextlib
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import child_process
import harm
import killed_training
import numpy as np
import pytest
from event_files import epochs_written, points
from harm import Interrupt, K
from killed_training import EPOCHS, KILLS
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from relu_probe import ReluProbe
from relu_probe.tensorboard.resume import SUFFIX, interrupted_files, shorten_files

PROBES = ("relu_probe", "other")
# The epochs that the first probe has written when each run is killed. Killed while "writing", it may have written 3 too.
READABLE = dict(zip(KILLS, ([0], [0], [0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4])))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The directory that each run left, by its end; "never" for the last run, and "whole" for a fit that was never killed."""
    place = tmp_path_factory.mktemp("runs")
    command = [sys.executable, killed_training.__file__, str(place)]
    done = subprocess.run(
        command, env=child_process.environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    left = {end: place / "killed" / str(number) for number, end in enumerate([*KILLS, "never"])}
    return {**left, "whole": place / "whole" / "0"}


def scalars(found):
    return {tag: values for tag, values in found.items() if "_fraction" in tag or tag.startswith(("died", "revived"))}


def assert_steps(found, steps):
    """Every chart has each of these steps exactly once."""
    assert {"dead_fraction", "dead_fraction/hidden", "zero_gradient_fraction/hidden", "died/hidden"} <= set(found)
    for tag, values in scalars(found).items():
        assert [step for step, _ in values] == steps, tag


@pytest.mark.parametrize("end", KILLS, ids=lambda end: f"{end[0]} {end[1]}")
def test_every_epoch_that_ended_is_readable(runs, end):
    found = points(runs[end] / "logs" / "relu_probe")
    ended = {int(line) for line in (runs[end] / "ended").read_text().split()}
    steps = [step for step, _ in found["dead_fraction"]]
    assert ended <= set(steps)
    assert steps in (READABLE[end], [*READABLE[end], 3] if end[0] == "writing" else READABLE[end])
    if end[0] != "writing":  # in which case the last step may be in some of the charts
        assert_steps(found, READABLE[end])


def test_the_resumed_fit_goes_on_without_gaps_or_repeats(runs):
    assert_steps(points(runs["never"] / "logs" / "relu_probe"), list(range(EPOCHS)))
    assert_steps(points(runs["never"] / "logs" / "other"), [-1, *range(0, EPOCHS, 2)])


def test_the_values_are_those_of_a_fit_that_was_never_killed(runs):
    for name in PROBES:
        whole, resumed = (points(runs[which] / "logs" / name) for which in ("whole", "never"))
        for tag in (tag for tag in whole if "_fraction" in tag or "_rate" in tag):
            for (step, value), (there, other) in zip(whole[tag], resumed[tag], strict=True):
                assert step == there
                np.testing.assert_array_equal(value, other, err_msg=f"{name} {tag} {step}")
    rates = [value.tolist() for _, value in whole["activation_rate/hidden"]]
    assert len({str(rate) for rate in rates}) > 1  # so that the rates of another epoch would be noticed


def uncut(directory):
    """Undoes the shortening: renames the complete copies of the shortened files so that TensorBoard reads them."""
    for path in directory.glob("*superseded*"):
        path.replace(path.with_name(path.name.replace("superseded", "tfevents")))
    return directory


@pytest.fixture
def copy(runs, tmp_path):
    return lambda end: Path(shutil.copytree(runs[end], tmp_path / "copy")) / "logs" / "relu_probe"


def test_nothing_is_thrown_away(copy):
    """What the killed fits wrote about the epochs that were trained again still exists, under another name."""
    directory = copy("never")
    assert len(list(directory.glob("*superseded*"))) in (2, 3)  # epochs 0 and 2, and 3 where it was written in time
    again = [step for step, _ in points(uncut(directory))["dead_fraction"]]
    assert sorted(again) in ([0, 0, 1, 2, 2, 3, 4, 5, 6], [0, 0, 1, 2, 2, 3, 3, 4, 5, 6])


@pytest.mark.parametrize("cut", [True, False])
def test_the_reader_of_tensorboards_page_shows_each_once_cut_or_not(copy, cut):
    """It goes by the SessionLog.START of a resumed fit, which helps on file systems where files cannot be shortened."""
    directory = copy("never")
    reader = plugin_event_accumulator.EventAccumulator
    assert_steps(points(directory if cut else uncut(directory), reader), list(range(EPOCHS)))


def test_a_record_that_was_half_written(copy):
    directory = copy(("after", 2))
    newest = max(directory.glob("*tfevents*"))
    with newest.open("r+b") as file:
        file.truncate(newest.stat().st_size - 7)
    assert_steps(points(directory), [0, 1, 2])
    shorten_files(interrupted_files(directory.iterdir(), 2), 2)
    assert_steps(points(directory), [0, 1])


def test_files_of_others_and_what_is_not_written_again_stay(copy):
    """Only the probe's own files are shortened, and only if they contain steps that are written again."""
    directory = copy(("after", 2))
    newest = max(directory.glob("*tfevents*"))
    other = newest.rename(directory / newest.name.removesuffix(SUFFIX))
    before = {path: path.read_bytes() for path in directory.iterdir()}
    assert interrupted_files(directory.iterdir(), 3) == []
    assert interrupted_files([other, directory / "missing"], 0) == []
    shorten_files([directory / "missing"], 0)
    assert before == {path: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.once
@pytest.mark.parametrize("mistake", ["repeats", "a gap"])
def test_the_comparison_rejects(copy, mistake):
    directory = copy("never")
    if mistake == "a gap":
        sorted(directory.glob("*tfevents*"))[KILLS.index(("saved", 4))].unlink()
    else:
        uncut(directory)
    with pytest.raises(AssertionError):
        assert_steps(points(directory), list(range(EPOCHS)))


@pytest.mark.parametrize(("order", "steps"), [("probe first", [0, 1, 2]), ("backup first", [0, 2])])
def test_the_probe_belongs_before_the_backup(tmp_path, order, steps):
    """If the fit ends between the two, an epoch is either backed up but not written, or written and then trained again."""

    def end(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    for last in (K.callbacks.LambdaCallback(on_epoch_end=end), K.callbacks.Callback()):
        between = [ReluProbe(tmp_path), last, K.callbacks.BackupAndRestore(str(tmp_path / "backup"))]
        with contextlib.suppress(KeyboardInterrupt):
            harm.fitted(harm.net(), between if order == "probe first" else between[::-1], epochs=3)
    assert_steps(points(tmp_path / "relu_probe"), steps)


# --- fits that were not killed ----------------------------------------------------------------------------------------

BOTH = [0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("kind", [EventAccumulator, plugin_event_accumulator.EventAccumulator])
def test_a_completed_fit_stays_whole_beside_a_later_one(tmp_path, kind):
    for epochs in (5, 2):
        harm.fitted(harm.net(), [ReluProbe(tmp_path)], epochs=epochs)
    assert sorted(epochs_written(tmp_path, kind)) == sorted(BOTH)


def test_what_a_completed_fit_took_up_is_of_a_completed_training(tmp_path):
    """Interrupted in epoch 2, resumed, completed: a new fit then leaves the epochs of the interrupted one alone."""
    for first, last, stop in ((0, 4, 2), (2, 4, None), (0, 2, None)):
        with contextlib.suppress(KeyboardInterrupt):
            harm.fitted(harm.net(), [Interrupt(stop), ReluProbe(tmp_path)], initial_epoch=first, epochs=last)
    assert sorted(epochs_written(tmp_path)) == [0, 0, 1, 1, 2, 3]  # the order of files from one second is undefined


@pytest.mark.parametrize("threads", [False, True])
def test_a_fit_that_is_still_running_is_never_cut(tmp_path, threads):
    """Another fit, inside it or in another thread, has the same run directory."""

    def inner():
        harm.fitted(harm.net(), [ReluProbe(tmp_path)], epochs=2)

    def run(epoch, logs):
        if epoch == 2:
            thread = threading.Thread(target=inner)
            thread.start() if threads else inner()
            thread.join() if threads else None

    outer = [ReluProbe(tmp_path), K.callbacks.LambdaCallback(on_epoch_end=run)]
    harm.fitted(harm.net(), outer, epochs=5)
    assert sorted(epochs_written(tmp_path)) == sorted(BOTH)
    assert not list(tmp_path.rglob("*superseded*"))


def test_an_interrupted_fit_is_cut_though_its_traceback_is_kept(tmp_path):
    """A notebook keeps the last traceback, and with it all objects of the fit."""
    with pytest.raises(KeyboardInterrupt) as kept:
        harm.fitted(harm.net(), [Interrupt(3), ReluProbe(tmp_path)], epochs=5)
    harm.fitted(harm.net(), [ReluProbe(tmp_path)], initial_epoch=1, epochs=5)
    assert epochs_written(tmp_path) == list(range(5))
    del kept
