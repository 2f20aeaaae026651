"""`relu-probe shrink`, the installed command: exit codes, the file that it writes, and what it refuses."""

import numpy as np
import pytest
import tensorflow as tf
from commands import options_in_help, relu_probe
from keras_version import TRUST

K, L = tf.keras, tf.keras.layers


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shrink")
    x = np.random.default_rng(0).uniform(size=(60, 4)).astype("float32")
    np.savez(directory / "data.npz", x=x)
    for name, low in (("sick", -50.0), ("healthy", 50.0)):
        hidden = L.Dense(3, "relu", bias_initializer=K.initializers.Constant([low, 0.5, low]), name="hidden")
        model = K.Sequential([K.Input((4,)), hidden, L.Dense(1, name="out")])
        model.compile("adam", "mse")
        model.fit(x, x[:, :1], verbose=0)  # Keras does not load an optimizer that had no step
        model.save(directory / f"{name}.keras")
    (directory / "folder.keras").mkdir()
    return directory


def run(files, *arguments):
    return relu_probe("shrink", *arguments, "--data", "data.npz", *TRUST, cwd=files)


def test_the_smaller_model_is_written(files):
    result = run(files, "sick.keras", "-o", "small.keras", "--bounds", "0", "1")
    assert (result.returncode, result.stderr) == (0, ""), result
    lines = result.stdout.splitlines()
    assert lines[0] == "Shrunk: 2 units removed, 63.2% fewer parameters"
    assert lines[-1] == "relu-probe shrink: small.keras has 7 parameters, 12 fewer"
    small, model = (K.models.load_model(files / f"{name}.keras") for name in ("small", "sick"))
    x = np.load(files / "data.npz")["x"]
    assert np.allclose(small(x), model(x), atol=1e-5)
    assert small.get_layer("hidden").units == 1
    assert small.optimizer is not None


@pytest.mark.once
def test_every_option_together(files):
    """A new option is missing here."""
    options = ["--output", "tiny.keras", "--bounds", "0", "1", "--layers", "hid*", "--batch-size", "7"]
    options += ["--quiet", "--debug", "--trust-model"]
    result = relu_probe("shrink", "sick.keras", "--data", "data.npz", *options, cwd=files)
    assert (result.returncode, result.stdout) == (0, "relu-probe shrink: tiny.keras has 7 parameters, 12 fewer\n"), (
        result
    )
    assert options_in_help("shrink", files) == {"--data", *(text for text in options if text.startswith("--"))}


def test_nothing_is_written_where_nothing_can_be_removed(files):
    result = run(files, "healthy.keras", "-o", "none.keras", "-q")
    assert (result.returncode, result.stdout) == (
        1,
        "relu-probe shrink: no unit can be removed; nothing is written\n",
    ), result
    assert not (files / "none.keras").exists()


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sick.keras", "-o", "small.h5"), "small.h5 is no .keras file; expected a name such as small.keras."),
        (("sick.keras", "-o", "sick.keras"), "sick.keras is given twice; expected a different file for each."),
        (("sick.keras", "-o", "folder.keras"), "folder.keras cannot be written"),
        (("missing.keras", "-o", "small.keras"), "missing.keras: no such file"),
    ],
)
def test_errors_in_one_line(files, arguments, words):
    before = (files / "sick.keras").read_bytes()
    result = run(files, *arguments)
    assert (result.returncode, result.stdout) == (2, ""), result
    assert result.stderr.startswith(f"relu-probe shrink: could not shrink: {words}")
    assert len(result.stderr.splitlines()) == 1
    assert (files / "sick.keras").read_bytes() == before


@pytest.mark.once
def test_bounds_that_the_data_leaves(files):
    result = run(files, "sick.keras", "-o", "small2.keras", "--bounds", "0", "0.5")
    assert (result.returncode, result.stdout) == (2, "")
    assert "outside of the bounds" in result.stderr
    assert not (files / "small2.keras").exists()
