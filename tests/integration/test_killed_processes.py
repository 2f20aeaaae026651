"""Event files of fits in several processes: those of a running fit are left alone, those of a killed one are continued."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import child_process
import harm
import pytest
from event_files import epochs_written
from harm import Interrupt

from relu_probe import ReluProbe
from relu_probe.tensorboard import file_lock

pytestmark = pytest.mark.any_keras

# A fit of five epochs. After the third it prints "waits", and waits for a line on its standard input.
FIT = """
import os, sys
from pathlib import Path
import harm
from relu_probe import ReluProbe
place, does = Path(sys.argv[1]), sys.argv[2]

def pause(epoch, logs):
    files = list(place.rglob("*tfevents*"))
    if epoch == 0 and does == "removes":
        files[0].unlink()
    if epoch == 2:
        assert [file.read_bytes() for file in files]  # which also closes them
        if does == "forks" and not os.fork():  # like a worker that loads data
            sys.stdin.read()
            os._exit(0)
        print("waits", flush=True)
        sys.stdin.readline()

harm.fitted(harm.net(), [ReluProbe(place), harm.K.callbacks.LambdaCallback(on_epoch_end=pause)], epochs=5)
"""

posix_only = pytest.mark.skipif(file_lock.fcntl is None, reason="no locks")


@contextmanager
def fit_in_another_process(place, does="fits"):
    """Runs a fit that waits after its third epoch, and continues at the end of the block."""
    command = [sys.executable, "-c", FIT, str(place), does]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=child_process.environment(), stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout.readline() == "waits\n"
            yield process
        except BaseException:
            process.kill()
            raise


def resume(place, first=0, last=2):
    harm.fitted(harm.net(), [ReluProbe(place)], initial_epoch=first, epochs=last)


@pytest.mark.parametrize(("does", "epochs"), [("fits", [0, 1, 2, 3, 4]), ("removes", [1, 2, 3, 4])])
def test_a_fit_that_runs_in_another_process_is_never_cut(tmp_path, does, epochs):
    with fit_in_another_process(tmp_path, does) as process:
        resume(tmp_path)
    assert process.returncode == 0
    assert sorted(epochs_written(tmp_path)) == sorted([*epochs, 0, 1])
    assert not list(tmp_path.rglob("*superseded*"))


@posix_only
@pytest.mark.parametrize("does", ["removes", "forks"])
def test_a_killed_one_is_cut_even_if_its_children_live_on(tmp_path, does):
    with fit_in_another_process(tmp_path, does) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        resume(tmp_path, 1, 5)
    epochs = [1, 2, 3, 4] if does == "removes" else [0, 1, 2, 3, 4]
    assert sorted(epochs_written(tmp_path)) == epochs  # the order of files from one second is undefined
    assert len(list(tmp_path.rglob("*superseded*"))) == 1


def no_locks(*args):
    raise OSError("Function not implemented")


@posix_only
@pytest.mark.parametrize("system", ["Windows", "a file system without locks"])
def test_where_there_are_no_locks_all_stays(tmp_path, monkeypatch, system):
    name, value = ("fcntl", None) if system == "Windows" else ("fcntl.flock", no_locks)
    monkeypatch.setattr(f"relu_probe.tensorboard.file_lock.{name}", value)
    with pytest.raises(KeyboardInterrupt):
        harm.fitted(harm.net(), [Interrupt(2), ReluProbe(tmp_path)], epochs=5)
    resume(tmp_path)
    assert sorted(epochs_written(tmp_path)) == [0, 0, 1, 1]


@posix_only
def test_two_that_ask_at_once_are_no_writers_to_each_other(tmp_path):
    (path := tmp_path / "events").touch()
    asks = os.open(path, os.O_RDONLY)
    assert file_lock._try_lock(asks, exclusive=False)
    assert not file_lock.is_held(path)
    os.close(asks)
    lock = file_lock.Lock(path)
    assert file_lock.is_held(path)
    lock.release()
    assert not file_lock.is_held(path)
    assert lock is not None
