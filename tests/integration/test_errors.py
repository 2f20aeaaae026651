"""Error messages for wrong input: the value found, what was expected, the fix."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe, measure, watch

K, L = tf.keras, tf.keras.layers
X, Y = np.ones((6, 3), "f"), np.ones((6, 1), "f")


def net(*layers, **compile_args):
    layers = layers or (L.Dense(4, "relu", name="hidden"), L.Dense(1, name="out"))
    return sequential(3, *layers, optimizer="sgd", name="net", **compile_args)


def raises(kind, text, work):
    with pytest.raises(kind) as error:
        work()
    assert text in str(error.value), str(error.value)


def test_a_model_without_a_relu_lists_what_was_looked_at():
    model = net(L.Dense(2, "sigmoid", name="soft"), L.Dense(1, name="out"))
    text = (
        "no ReLU found in model 'net'; looked at soft (Dense, sigmoid), out (Dense, linear). sigmoid units can "
        "saturate but not die. Expected a layer that ends in a ReLU"
    )
    for work in (
        lambda: measure(model, X),
        lambda: model.fit(X, Y, verbose=0, callbacks=[ReluProbe()]),
        lambda: watch(model).__enter__(),
    ):
        raises(ValueError, text, work)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ("hiden", "layers='hiden' matches no layer of the model; expected names, globs or layer objects from hidden."),
        ("out", "layers='out' is a layer of the model but no ReLU that is counted; expected names, globs"),
        ([], "layers=[] asks for no layer; expected names, globs or layer objects from hidden."),
    ],
)
def test_layers_that_do_not_match(wanted, text):
    raises(ValueError, text, lambda: measure(net(), X, layers=wanted))
    raises(ValueError, text, lambda: net().fit(X, Y, verbose=0, callbacks=[ReluProbe(layers=wanted)]))


def test_layers_by_name_glob_and_object():
    model = net(L.Dense(4, "relu", name="a1"), L.Dense(4, "relu", name="a2"), L.Dense(1))
    for wanted in ("a2", ["a2"], "*2", model.layers[1], [model.layers[1]]):
        assert list(measure(model, X, layers=wanted).layers) == ["a2"]


def test_layers_of_a_nested_model_by_path():
    """The keys are the bare names if these are unique. The name of a nested model does not select its layers."""
    hidden = [L.Dense(4, "relu", name="a"), L.Dense(4, "relu", name="b"), L.Dropout(0.1, name="drop")]
    inner = K.Sequential([K.Input((3,)), *hidden], name="enc")
    model = net(inner, L.Dense(4, "relu", name="a_too"), L.Dense(1))
    for wanted, keys in (("enc/*", ["a", "b"]), ("enc/b", ["b"]), (["enc/b", "a*"], ["a", "b", "a_too"]), ("a", ["a"])):
        assert list(measure(model, X, layers=wanted)) == keys
    for wanted in ("enc*", "e*"):  # the nested model's name is not a name of its layers
        raises(ValueError, "matches no layer of the model", lambda wanted=wanted: measure(model, X, layers=wanted))
    text = "layers='enc/drop' is a layer of the model but no ReLU that is counted"
    raises(ValueError, text, lambda: measure(model, X, layers="enc/drop"))
    raises(ValueError, "layers='dec/*' matches no layer of the model", lambda: measure(model, X, layers="dec/*"))


def test_an_unbuilt_model():
    model = K.Sequential([L.Dense(2, "relu")], name="unbuilt")
    raises(
        ValueError,
        "model 'unbuilt' is unbuilt: it has no weights yet, so nothing can be measured. Call it on a batch",
        lambda: measure(model, X),
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (X[:0], "data is empty (0 samples); expected at least 1. Check the split or filter that made it."),
        (tf.data.Dataset.from_tensor_slices(X[:0]).batch(2), "data is empty (0"),
        (tf.data.Dataset.from_tensor_slices(X).batch(2).filter(lambda x: False), "data is empty (0 samples)"),
        (
            tf.data.Dataset.from_tensor_slices(X).batch(2).repeat(),
            "data is infinite; expected a finite dataset. Pass max_samples=...",
        ),
        (
            (X, None),
            "data has no labels (y is None), so no gradients; expected y. Pass (x, y), or x alone for activations only.",
        ),
        ((X, Y[:5]), "the arrays of data have [5, 6] samples; expected equally many in each. Cut them to one length."),
        ((X, Y, Y, Y), "data is a tuple of 4; expected arrays (x, (x,), (x, y) or (x, y, sample_weight)), a batched"),
        (iter([X]), "which cannot be read more than once; expected arrays"),
        ("file.npz", "data is 'file.npz' (str); expected arrays"),
        (None, "data is None (NoneType); expected arrays"),
        (
            np.ones((6, 4), "f"),
            "the model cannot be run on the data: found batches of shape ((None, 4),) (x first), expected x of",
        ),
        (
            tf.data.Dataset.from_tensor_slices(X),
            "found batches of shape ((3,),) (x first), expected x of (None, 3), batched",
        ),
        ((X, np.ones((6, 7, 2), "f")), "with labels that fit the loss. Reshape or batch the data. Keras says:"),
    ],
)
def test_data_that_cannot_be_measured(data, text):
    raises(ValueError, text, lambda: measure(net(), data))


@pytest.mark.parametrize("name", ["batch_size", "max_samples"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8"])
def test_sizes(name, value):
    raises(
        ValueError, f"{name} is {value!r}; expected a whole number >= 1.", lambda: measure(net(), X, **{name: value})
    )


def test_arguments_of_the_callback(tmp_path):
    for freq in (0, -1, 1.5, True):
        raises(
            ValueError, f"freq is {freq!r}; expected a whole number of epochs >= 1.", lambda f=freq: ReluProbe(freq=f)
        )
    (tmp_path / "file").write_text("")
    raises(
        ValueError,
        "file' is a file; expected a directory, or a path that does not exist yet.",
        lambda: ReluProbe(tmp_path / "file"),
    )
    raises(TypeError, "expected a path. Data goes into data=.", lambda: ReluProbe(X))
    for name in ("", "a/b", "..", 3):
        raises(
            ValueError,
            f"name is {name!r}; expected a directory's name without slashes",
            lambda n=name: ReluProbe(name=n),
        )


def test_no_keras_model():
    raises(TypeError, "found 'model' (str); expected a Keras model, tf.keras.Model.", lambda: measure("model", X))


@pytest.mark.skipif(not hasattr(K, "ops"), reason="tf_keras has one backend only")
def test_another_backend():
    code = """
import keras, numpy as np
from relu_probe import measure
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "relu"), keras.layers.Dense(1)])
measure(model, np.ones((4, 3)))
"""
    env = {**os.environ, "KERAS_BACKEND": "numpy"}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    if "No module named 'jax'" in result.stderr:
        pytest.skip("this Keras needs JAX for its NumPy backend; the oldest-version run has one that does not")
    assert result.returncode == 1
    assert "Keras runs on the 'numpy' backend; expected 'tensorflow'. Set KERAS_BACKEND=tensorflow" in result.stderr


def test_two_probes_of_one_name_in_one_fit(tmp_path):
    """The error comes before the first step, and before anything is written. Two fits may use the same name."""
    probes, model = [ReluProbe(tmp_path), ReluProbe(data=(X, Y))], net()
    before = model.get_weights()
    text = "2 probes of this fit have the name 'relu_probe'; expected a different one for each, for its keys in"
    raises(ValueError, text, lambda: model.fit(X, Y, verbose=0, callbacks=probes))
    assert all(map(np.array_equal, before, model.get_weights()))
    assert list(tmp_path.iterdir()) == []
    for probe in probes:
        model.fit(X, Y, verbose=0, callbacks=[probe, ReluProbe(name="other")])
        assert probe.report.samples == 6


def test_arguments_that_are_no_list_of_reports():
    from relu_probe import diagnose, history
    from relu_probe.plots import plot_history, plot_report

    probe, report = ReluProbe(), measure(net(), X)
    for work in (history, plot_history):
        raises(TypeError, "(ReluProbe); expected a list of reports. Pass probe.reports.", lambda work=work: work(probe))
        raises(TypeError, "(Report); expected a list of reports. Pass probe.reports.", lambda work=work: work(report))
        raises(TypeError, "found 'a' (str); expected a list of reports.", lambda work=work: work([report, "a"]))
    raises(TypeError, "found a list; expected one report. Pass probe.report,", lambda: plot_report([report]))
    text = "probe is 'p'; expected the ReluProbe of the training, or None."
    raises(TypeError, text, lambda: diagnose(net(), X, probe="p"))


def test_sparse_arrays():
    data = tf.sparse.from_dense(X)
    raises(
        ValueError,
        "data is a SparseTensor; expected dense arrays. Pass tf.sparse.to_dense(x).",
        lambda: measure(net(), data),
    )
