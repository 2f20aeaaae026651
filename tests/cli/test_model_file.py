"""Model files that would run code: none is loaded by `relu-probe check` without --trust-model."""

import json
import sys
import warnings
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import tensorflow as tf
from keras_version import HAS_SAFE_MODE, LEGACY

from relu_probe.cli.main import main
from relu_probe.cli.model_file import _check_safe_mode

K, L = tf.keras, tf.keras.layers
FUNCTION = (lambda x: x) if LEGACY else K.activations.relu  # tf_keras cannot save its own
PROOF = Path("proof")  # a file that the code in a model file makes


def model(*before):
    return K.Sequential([K.Input((3,)), *before, L.Dense(4, "relu", bias_initializer="ones")])


def changed(source, target, change):
    """Writes a copy of a .keras file with another configuration."""
    with ZipFile(source) as before, ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config)
            after.writestr(name, content)


def layer_of(config, class_name):
    return next(layer for layer in config["config"]["layers"] if layer["class_name"] == class_name)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    np.savez("data.npz", x=np.ones((8, 3), np.float32))
    Path("payload.py").write_text("open('proof', 'w').close()\ndef relu(x): return x\n")
    yield tmp_path
    sys.modules.pop("payload", None)


def check(*arguments):
    return main(["check", *arguments, "--data", "data.npz", "--max-dead", "1"])


def assert_refused(path, capfd, why="", trusted=None):
    """Asserts that the file is refused, names the option, and that no code of it was run."""
    assert check(path) == 2
    error = capfd.readouterr().err
    assert why in error, error
    assert "pass --trust-model if you trust whoever made the file." in error
    assert not PROOF.exists()
    if trusted is not None:
        assert check(path, "--trust-model") == trusted
        capfd.readouterr()


def save_h5(name, net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the format is old
        net.save(name)


def test_a_lambda(here, capfd):
    model(L.Lambda(lambda x: (open("proof", "w").close(), x * 1.0)[1])).save("lambda.keras")
    PROOF.unlink()
    assert_refused(
        "lambda.keras", capfd, "carries code (a Lambda), which loading it would run; refused." * HAS_SAFE_MODE, 0
    )
    assert PROOF.exists()


def test_an_hdf5_file_named_keras(here, capfd):
    """The loader of tf_keras takes it for HDF5, and then ignores safe mode."""
    save_h5("model.h5", model(L.Lambda(lambda x: (open("proof", "w").close(), x * 1.0)[1])))
    PROOF.unlink()
    Path("model.h5").rename("model.keras")
    for options in ([], ["--trust-model"]):
        assert check("model.keras", *options) == 2
        assert "model.keras is no zip file, as a .keras file must be." in capfd.readouterr().err
        assert not PROOF.exists()


def test_a_module_that_the_configuration_names(here, capfd):
    model(L.Activation("relu", name="function")).save("plain.keras")
    function = {"module": "payload", "class_name": "function", "config": "relu", "registered_name": "function"}

    def name_module(config):
        layer_of(config, "Activation")["config"]["activation"] = function

    changed("plain.keras", "evil.keras", name_module)
    assert check("evil.keras") == 2
    assert not PROOF.exists()
    assert "payload" not in sys.modules


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.layers", "TFSMLayer"),
        ("keras", "layers.TFSMLayer"),
        ("keras.src.export.tfsm_layer", "TFSMLayer"),
        ("keras.ops", "relu"),
    ],
)
def test_a_lambda_that_names_a_class_of_keras(here, capfd, module, name):
    """Keras 3.15.1 makes any class of its own the function of a Lambda, in spite of safe mode."""
    model(L.Lambda(FUNCTION)).save("plain.keras")

    def name_class(config):
        config = layer_of(config, "Lambda")["config"]
        config["function"] = {"module": module, "class_name": "function", "config": name, "registered_name": name}

    changed("plain.keras", "evil.keras", name_class)
    assert_refused("evil.keras", capfd, "carries code" * HAS_SAFE_MODE)


@pytest.mark.parametrize("class_name", ["TFSMLayer", "layers.Lambda", "TorchModuleWrapper"])
def test_classes_that_carry_code(here, capfd, class_name):
    model(L.Lambda(FUNCTION)).save("plain.keras")
    changed("plain.keras", "evil.keras", lambda config: layer_of(config, "Lambda").update(class_name=class_name))
    assert_refused("evil.keras", capfd, "carries code (a " * HAS_SAFE_MODE)


@pytest.mark.skipif(not HAS_SAFE_MODE, reason="this Keras loads no file without --trust-model")
def test_harmless_files_need_no_trust(here, capfd):
    inner = model(L.Dense(3, name="Lambda"))
    K.Sequential([K.Input((3,)), inner, L.Dense(2, "relu", name="TFSMLayer")]).save("harmless.keras")
    assert check("harmless.keras") == 0


@pytest.mark.skipif(HAS_SAFE_MODE, reason="this Keras has a safe mode")
def test_every_file_needs_trust_where_keras_is_not_safe(here, capfd):
    model().save("harmless.keras")
    why = "tf_keras may run code when it loads a model file" if LEGACY else f"Keras {K.__version__} may run code"
    assert_refused("harmless.keras", capfd, why, trusted=0)


@pytest.mark.parametrize("content", [b"[", b"\xff", b"1" * 10, b"[" * 100_000])
def test_a_configuration_that_is_no_json(here, capfd, content):
    with ZipFile("odd.keras", "w") as archive:
        archive.writestr("config.json", content)
    assert check("odd.keras") == 2
    error = capfd.readouterr().err
    assert len(error.splitlines()) == 1
    assert not HAS_SAFE_MODE or "odd.keras cannot be loaded: " in error


@pytest.mark.once
@pytest.mark.parametrize("version", ["3.15.1", "3.15.2", "3.16.0.dev202611", "4.0", "3.12.4", "3.12.5"])
def test_versions_whose_safe_mode_is_mended(version):
    _check_safe_mode("model.keras", version)


@pytest.mark.once
@pytest.mark.parametrize(
    "version", ["3.15.0", "3.15.0rc1", "3.14.1", "3.13.2", "3.13.0", "3.12.3", "3.3.3", "2.21.0", ""]
)
def test_versions_whose_safe_mode_has_holes(version):
    with pytest.raises(ValueError, match=r"refused\. Use Keras 3\.15\.1 or newer, or pass --trust-model if you trust"):
        _check_safe_mode("model.keras", version)
