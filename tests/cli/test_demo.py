"""`relu-probe demo`, run as a command on the real digits."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import page
import pytest
from commands import options_in_help

from relu_probe.cli.findings import Outcome, findings
from relu_probe.cli.main import main

ROOT = Path(__file__).parents[2]
OPTIONS = ["--log-dir", "runs", "--epochs", "2", "--seed", "1"]
NAMES = ["zeros", "random_normal", "custom_uniform", "zeros_revived", "sick_control"]


def command(*args, cwd=ROOT):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One real run: its process and its log directory."""
    here = tmp_path_factory.mktemp("demo")
    return command("-m", "relu_probe", "demo", *OPTIONS, cwd=here), here / "runs"


def rows(printed):
    """`(initialiser, epoch, dead, zero gradient, accuracy)` for each row of the printed table."""
    found, name = [], ""
    pattern = r"^(\w*) +(\d+) +(\d+) +[\d.]+% +(\d+) +[\d.]+% +([\d.]+)%$"
    for first, epoch, dead, zero, accuracy in re.findall(pattern, printed, re.MULTILINE):
        name = first or name
        found.append((name, int(epoch), int(dead), int(zero), float(accuracy)))
    return found


# --- the real run -----------------------------------------------------------------------------------------------------


def test_it_succeeds_and_shows_progress(demo):
    process, _ = demo
    assert process.returncode == 0, process.stderr
    for number, name in enumerate(NAMES, 1):
        assert re.search(rf"^Training {number} of 5: {name} +epochs .*0 1 2 $", process.stderr, re.MULTILINE)
    assert len(process.stderr.splitlines()) == 1 + len(NAMES), process.stderr  # no messages of TensorFlow


def test_the_answer_comes_first_and_what_to_do_next_last(demo):
    process, _ = demo
    lines = process.stdout.strip().splitlines()
    assert lines[0] == "Can a Dense layer's bias be initialized to zero?"
    assert lines[2].startswith("Answer: ")
    assert lines[-3].startswith("Next, your own model: train it with model.fit(")
    assert lines[-1] == "  relu-probe check model.keras --data validation.npz"


def test_it_was_run_with_every_option(tmp_path):
    assert options_in_help("demo", tmp_path) == set(OPTIONS[::2])


def test_a_row_for_each_initialiser_and_epoch(demo):
    process, _ = demo
    assert [row[:2] for row in rows(process.stdout)] == [(name, epoch) for name in NAMES for epoch in (0, 1, 2)]


def test_only_the_control_is_dead(demo):
    process, _ = demo
    for name, epoch, dead, zero, accuracy in rows(process.stdout):
        assert dead <= zero <= 64
        assert (dead == 64) == (name == "sick_control")
        assert accuracy < 25 if epoch == 0 or name == "sick_control" else accuracy > 75


def test_it_fits_80_columns_in_plain_ascii(demo):
    process, _ = demo
    lines = process.stdout.rstrip().splitlines()
    assert max(map(len, lines)) <= 80
    assert process.stdout.isascii()
    assert lines[-6] == "relu_probe: tensorboard --logdir runs"
    assert lines[-5].startswith("  and open http://localhost:6006/")
    assert process.stdout.count("relu_probe: tensorboard") == 1


def test_its_sentences_are_the_findings_of_its_table(demo):
    process, _ = demo
    outcomes = {}
    for name in NAMES:
        _, _, dead, zero, accuracy = zip(*[row for row in rows(process.stdout) if row[0] == name])
        outcomes[name] = Outcome(64, 1437, 360, list(dead), list(zero), [a / 100 for a in accuracy])
    printed = " ".join(process.stdout.split())
    for sentence in findings(outcomes):
        assert sentence in printed


def test_a_tensorboard_run_for_each_initialiser(demo):
    process, log_dir = demo
    assert sorted(path.name for path in log_dir.iterdir()) == sorted(NAMES)
    for name in NAMES:
        of_table = [(epoch, dead / 64, zero / 64) for n, epoch, dead, zero, _ in rows(process.stdout) if n == name]
        dead, zero = (
            _scalars(log_dir / name / "relu_probe", tag) for tag in ("dead_fraction", "zero_gradient_fraction")
        )
        assert [(step, value, dict(zero)[step]) for step, value in dead] == of_table


def test_the_page_hparams_compares_the_initialisers(demo):
    """What TensorBoard's server tells its page HParams."""
    with page.tensorboard(demo[1]) as address:
        groups = page.wait_for(lambda: page.hparams_groups(address, len(NAMES), "dead_fraction"))
    shown = {(hparams["bias_initializer"], hparams["revive"]): metrics["dead_fraction"] for hparams, metrics in groups}
    assert shown.pop(("sick_control", False)) == 1
    assert set(shown) == {("zeros", False), ("random_normal", False), ("custom_uniform", False), ("zeros", True)}
    assert max(shown.values()) < 0.5


def _scalars(directory, tag):
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={"tensors": 0}).Reload()
    return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]


@pytest.mark.once
def test_default_log_dir_is_new_for_each_run(tmp_path, monkeypatch, capsys, demo):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--epochs", "1"]) == 0
    (log_dir,) = (tmp_path / "logs").iterdir()
    assert re.fullmatch(r"demo-\d{8}-\d{6}", log_dir.name)
    seed_0, seed_1 = rows(capsys.readouterr().out), rows(demo[0].stdout)
    assert [row[4] for row in seed_0 if row[1] == 0] != [row[4] for row in seed_1 if row[1] == 0]


# --- the same start for each ------------------------------------------------------------------------------------------


def test_only_the_biases_differ_at_the_start():
    from relu_probe.cli import digits

    kernels, biases, others = zip(*(weights(digits, name, seed=3) for name in NAMES))
    for kernel, other in zip(kernels, others):
        np.testing.assert_array_equal(kernel, kernels[0])
        np.testing.assert_array_equal(other, others[0])
    assert np.all(biases[0] == 0)
    assert 0.02 < np.std(biases[1]) < 0.08
    assert 0.05 < np.max(np.abs(biases[2])) <= 0.1
    assert np.all(biases[3] == 0)
    assert np.all(biases[4] == -5)
    assert not np.array_equal(weights(digits, "zeros", seed=4)[0], kernels[0])


def weights(digits, name, seed):
    kernel, bias, *classes = digits.build(digits.bias_initialiser(name, seed), seed).get_weights()
    return kernel, bias, np.concatenate([w.ravel() for w in classes])


def test_digits_are_enlarged_not_changed():
    from sklearn.datasets import load_digits

    from relu_probe.cli import digits

    (x, y), (x_validation, y_validation) = digits.load(seed=0)
    assert (x.shape, y.shape, x_validation.shape, y_validation.shape) == (
        (1437, 784),
        (1437, 10),
        (360, 784),
        (360, 10),
    )
    assert (x.min(), x.max(), x.dtype) == (0.0, 1.0, np.float32)
    images = np.concatenate([x, x_validation]).reshape(-1, 28, 28)
    assert images[:, :2].max() == images[:, :, -2:].max() == 0
    small = images[:, 2:-2, 2:-2].reshape(-1, 8, 3, 8, 3)
    np.testing.assert_array_equal(small.min(axis=(2, 4)), small.max(axis=(2, 4)))
    labelled = zip(small[:, :, 0, :, 0].reshape(-1, 64) * 16, np.concatenate([y, y_validation]).argmax(1))
    assert sorted((*p, c) for p, c in labelled) == sorted((*p, c) for p, c in zip(*load_digits(return_X_y=True)))


# --- what stops it ----------------------------------------------------------------------------------------------------


def test_without_scikit_learn_it_says_how_to_install_it():
    missing = (
        "import sys; sys.modules['sklearn'] = None; from relu_probe.cli.main import main; sys.exit(main(['demo']))"
    )
    process = command("-c", missing)
    assert process.returncode == 2
    assert process.stderr == (
        "relu-probe demo: scikit-learn is not installed, and the demo trains on its handwritten digits. "
        f"Install it: {sys.executable} -m pip install scikit-learn\n"
    )


def test_a_log_dir_that_is_a_file(tmp_path, capsys):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    assert main(["demo", "--log-dir", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"relu-probe demo: --log-dir {path} is a file; expected a directory, or a path that does not exist yet.\n"
    )


def test_a_log_dir_in_use_is_left_alone(tmp_path, capsys):
    (tmp_path / "zeros").mkdir()
    assert main(["demo", "--log-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"relu-probe demo: --log-dir {tmp_path} is not empty; expected a new directory: TensorBoard would draw an old "
        "and a new run of one name as one line. Pass another, or none for a new logs/demo-...\n"
    )


@pytest.mark.parametrize(
    ("option", "value", "lowest"), [("--epochs", "0", 1), ("--epochs", "two", 1), ("--seed", "-1", 0)]
)
def test_wrong_numbers(option, value, lowest, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", f"{option}={value}"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(
        f"demo: argument {option}: found '{value}'; expected a whole number >= {lowest}.; see relu-probe demo --help\n"
    )
