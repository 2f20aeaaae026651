"""`relu-probe check` on models: every outcome. The installed command runs where a process of its own is needed."""

import csv
import json
import os
import pty
import re
import sys
import warnings
from subprocess import CompletedProcess
from zipfile import ZipFile

import numpy as np
import pytest
import tensorflow as tf
from commands import options_in_help, relu_probe
from keras_version import TRUST

from relu_probe import Report
from relu_probe.cli.main import main
from relu_probe.report.limits import Limits

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).random((80, 3), np.float32)
Y = X.sum(axis=1, keepdims=True)

DATA_MODULE = """
import numpy as np
import tensorflow as tf

@tf.keras.utils.register_keras_serializable("ours")
class Own(tf.keras.layers.Layer):
    def call(self, x):
        return x

def dataset():
    return tf.data.Dataset.from_tensor_slices((np.ones((20, 3), "f"), np.ones((20, 1), "f"))).batch(8)

"""


def net(*before, bias=1.0, activation="relu", loss="mse"):
    K.utils.set_random_seed(0)
    bias = K.initializers.Constant([bias] * 3 + [1.0])
    hidden = L.Dense(4, activation, kernel_initializer="ones", bias_initializer=bias, name="hidden")
    model = K.Sequential([K.Input((3,)), *before, hidden, L.Dense(1, kernel_initializer="ones", name="out")])
    if loss:
        model.compile("sgd", loss)
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory with a user's models and data."""
    directory = tmp_path_factory.mktemp("check")
    (directory / "our_data.py").write_text(DATA_MODULE)
    namespace = {}
    exec(DATA_MODULE, namespace)
    net().save(directory / "alive.keras")
    net(bias=-100.0).save(directory / "dead.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf_keras warns that the format is old
        net(bias=-100.0).save(directory / "dead.h5")
    net(loss=None).save(directory / "uncompiled.keras")
    net(activation="tanh").save(directory / "tanh.keras")
    inputs, relu = K.Input((3,)), L.ReLU(name="shared")
    hidden = L.Dense(4, "relu", bias_initializer="ones")(inputs)
    K.Model(inputs, [relu(L.Dense(2)(hidden)), relu(L.Dense(5)(hidden))]).save(directory / "shared.keras")
    net(namespace["Own"](name="own")).save(directory / "own.keras")
    ZipFile(directory / "damaged.keras", "w").close()
    np.savez(directory / "data.npz", x=X, y=Y)
    np.savez(directory / "wide.npz", x=np.ones((80, 5), np.float32), y=Y)
    np.savez_compressed(directory / "packed.npz", x=X)
    return directory


@pytest.fixture
def check(files, capfd, monkeypatch):
    """Runs the command in this process, because a new one takes seconds to import TensorFlow."""

    def run(*arguments, trust=TRUST):
        monkeypatch.chdir(files)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr("sys.path", [*sys.path])
        code = main(["check", *trust, *map(str, arguments)])
        return CompletedProcess(arguments, code, *capfd.readouterr())

    return run


def report_of(path):
    return Report.from_dict(json.loads(path.read_text()))


def assert_not_measured(result, text):
    """Asserts exit code 2, and one line with the reason."""
    assert (result.returncode, result.stdout) == (2, ""), result
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("relu-probe check: could not measure: "), result.stderr
    assert text in result.stderr, result.stderr


def test_a_model_that_is_alive(files):
    """Exit code 0, the table and the verdict on stdout; on stderr no progress bar in a pipe, no messages of TensorFlow."""
    outputs = ["--json", "report.json", "--csv", "report.csv"]
    result = relu_probe(
        *["check", *TRUST, "alive.keras", "--data", "data.npz", "--batch-size", 7, "--max-zero-gradient", 0],
        *outputs,
        cwd=files,
    )
    assert (result.returncode, result.stderr) == (0, "")
    report = report_of(files / "report.json")
    verdict = "relu-probe check: alive: no layer above max_dead=0 and max_zero_gradient=0, on 80 samples"
    assert result.stdout == f"{report}\n{verdict}\n"
    assert report["hidden"].active.tolist() == [80] * 4
    rows = list(csv.DictReader((files / "report.csv").read_text().splitlines()))
    assert [(row["layer"], row["neuron"], row["active"]) for row in rows] == [
        ("hidden", str(i), "80") for i in range(4)
    ]


@pytest.mark.once
def test_every_option_together(files, check):
    """In a process of its own; a new option is missing here."""
    check("alive.keras", "--data", "data.npz", "--json", "before.json")
    limits = ["--max-dead", 0.75, "--max-zero-gradient", 1, "--tolerance", 0.75, "--baseline", "before.json"]
    outputs = ["--json", "after.json", "--csv", "after.csv", "--quiet", "--debug"]
    options = [*limits, *outputs, "--require-all", "--trust-model", "--layers", "hid*", "--batch-size", 7]
    result = relu_probe("check", "dead.keras", "--data", "data.npz", *options, cwd=files)
    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        "relu-probe check: alive: no layer above max_dead=0.75 and max_zero_gradient=1, and none worse than the baseline, "
        "on 80 samples\n"
    )
    assert report_of(files / "after.json")["hidden"].active.tolist() == [0, 0, 0, 80]
    assert len((files / "after.csv").read_text().splitlines()) == 1 + 4
    assert options_in_help("check", files) == {"--data", *(text for text in options if str(text).startswith("--"))}


def test_a_model_that_is_dead(files, check):
    result = check("dead.keras", "--data", "data.npz", "--json", "dead.json")
    assert (result.returncode, result.stderr) == (1, "")
    (limit,) = Limits(max_dead=0).exceeded_by(report_of(files / "dead.json").layers)
    assert result.stdout.endswith(f"relu-probe check: {limit}\n")
    assert re.search(r"^hidden +4 +3 75\.0%", result.stdout, re.MULTILINE)
    assert report_of(files / "dead.json").dead_fraction == 0.75


def test_a_limit_on_gradients(check):
    arguments = ["--max-dead", 1, "--max-zero-gradient", 0.5]
    result = check("dead.keras", "--data", "our_data:dataset", *arguments, "--layers", "hid*")
    assert (result.returncode, result.stderr) == (1, "")
    assert "relu-probe check: hidden: 3 of 4 without gradient (limit 50 %) on 20 samples" in result.stdout


def test_each_of_several_limits_is_printed_once(check):
    result = check("dead.keras", "--data", "our_data:dataset", "--max-dead", 0, "--max-zero-gradient", 0)
    head, *lines = result.stdout[result.stdout.index("relu-probe check: ") :].splitlines()
    assert head == "relu-probe check: 1 layer above a limit"
    assert [
        re.match(r"hidden: 3 of 4 (dead|without gradient) \(limit 0 %\) on 20 samples;", line)[1] for line in lines
    ] == [
        "dead",
        "without gradient",
    ]


def test_a_limit_on_gradients_without_a_loss(check):
    result = check("uncompiled.keras", "--data", "data.npz", "--max-zero-gradient", 0.5)
    assert result.returncode == 2
    assert result.stderr.startswith(
        "relu-probe check: could not measure: max_zero_gradient=0.5 needs gradients, and the report has none of hidden; "
        "expected a report of a compiled model on (x, y)."
    )


def test_an_h5_file_always_needs_trust(check):
    assert_not_measured(
        check("dead.h5", "--data", "data.npz", trust=[]),
        "dead.h5 is an HDF5 file, which may run code when it is loaded; refused. Save the model as .keras, or pass "
        "--trust-model if you trust whoever made the file.\n",
    )
    assert check("dead.h5", "--data", "packed.npz", "--trust-model", "--max-dead", 0.75).returncode == 0


def test_custom_layers(check, monkeypatch):
    """The module of `--data`, which is imported first, registers them."""
    K.utils.get_custom_objects().clear()
    monkeypatch.delitem(sys.modules, "our_data", raising=False)
    assert_not_measured(
        check("own.keras", "--data", "data.npz"),
        "Layers or losses of your own must be registered (keras.saving.register_keras_serializable) in the module of "
        "--data module:function, which is imported first.\n",
    )
    assert check("own.keras", "--data", "our_data:dataset").returncode == 0


def test_a_model_without_a_relu(check):
    assert_not_measured(check("tanh.keras", "--data", "data.npz"), "no ReLU found in model 'seq")


def test_data_of_the_wrong_shape_and_its_traceback(check):
    text = "could not measure: the model cannot be run on the data: found batches of shape ((None, 5), (None, 1)) (x first)"
    debugged = check("alive.keras", "--data", "wide.npz", "--debug")
    assert debugged.returncode == 2
    assert "Traceback (most recent call last):" in debugged.stderr
    assert text in debugged.stderr.splitlines()[-1]


def test_a_layer_that_is_not_there(check):
    assert_not_measured(
        check("alive.keras", "--data", "data.npz", "--layers", "conv*"),
        "layers='conv*' matches no layer of the model; expected names, globs or layer objects from hidden.",
    )


def test_a_damaged_model(check):
    assert_not_measured(check("damaged.keras", "--data", "data.npz"), "damaged.keras cannot be loaded: ")


def test_quiet(check):
    result = check("alive.keras", "--data", "data.npz", "--quiet")
    assert result.stdout == "relu-probe check: alive: no layer above max_dead=0, on 80 samples\n"


def test_require_all(check):
    """A layer that is called with two widths is not counted."""
    assert check("shared.keras", "--data", "packed.npz").returncode == 0
    result = check("shared.keras", "--data", "packed.npz", "--require-all", "-q")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith("relu-probe check: not counted: shared (")


def test_a_baseline(files, check):
    """Only what is worse than the baseline fails: no limit on dead neurons, unless one is given."""
    for name in ("alive", "dead"):
        check(f"{name}.keras", "--data", "data.npz", "--json", f"{name}.json")
    same = check("dead.keras", "--data", "data.npz", "--baseline", "dead.json", "-q")
    assert (same.returncode, same.stdout) == (
        0,
        "relu-probe check: alive: none worse than the baseline, on 80 samples\n",
    )
    better = check("alive.keras", "--data", "data.npz", "--baseline", "dead.json", "--max-dead", 0, "-q")
    assert better.stdout.endswith("alive: no layer above max_dead=0, and none worse than the baseline, on 80 samples\n")
    worse = check("dead.keras", "--data", "packed.npz", "--baseline", "alive.json", "-q")
    assert (worse.returncode, worse.stdout) == (
        1,
        "relu-probe check: 1 of 1 layer worse than the baseline (tolerance 0.05)\n"
        "hidden: from 0 of 4 dead (0.0 %, N = 80) to 3 of 4 dead (75.0 %, N = 80)\n",
    )
    assert check("dead.keras", "--data", "data.npz", "--baseline", "alive.json", "--tolerance", 0.75).returncode == 0
    assert_not_measured(
        check("alive.keras", "--data", "data.npz", "--baseline", "alive.json", "--json", "alive.json"),
        "alive.json is given twice",
    )


def test_colours_on_a_terminal_only(files):
    ours, theirs = pty.openpty()
    result = relu_probe("check", *TRUST, "alive.keras", "--data", "data.npz", "-q", cwd=files, stdout=theirs)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert (result.returncode, result.stderr) == (0, "")
    assert shown.startswith("\x1b[32mrelu-probe check: alive: ")


def test_progress_on_a_terminal(files):
    ours, theirs = pty.openpty()
    result = relu_probe("check", *TRUST, "alive.keras", "--data", "data.npz", cwd=files, stderr=theirs)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert result.returncode == 0
    assert shown.startswith("Loading TensorFlow and the model ...")
    assert "3/3" in shown
    assert "3/3" not in result.stdout
