"""Models of `keras.applications`, against brute force. Those that take more than a few seconds run with RELU_PROBE_LARGE_MODELS=1."""

import os

import function_oracle
import numpy as np
import pytest
import tensorflow as tf

from relu_probe import measure

K = tf.keras
SIZES = {"MobileNetV2": 32, "MobileNetV3Small": 32, "ResNet50": 32, "DenseNet121": 32, "InceptionV3": 75}
LARGE = ("ResNet50", "DenseNet121", "InceptionV3")
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(K.__name__.startswith("tf_keras"), reason="the order of the calls is that of Keras 3"),
]


def built(name):
    """Returns the model, with biases that make some neurons dead."""
    K.utils.set_random_seed(0)
    more = {"alpha": 0.35} if name == "MobileNetV2" else {}
    size = SIZES[name]
    model = getattr(K.applications, name)(weights=None, input_shape=(size, size, 3), classes=3, **more)
    rng = np.random.default_rng(0)
    model.set_weights(
        [w + rng.standard_normal(w.shape).astype("f") * (w.ndim == 1) * 0.5 * (w == 0) for w in model.get_weights()]
    )
    model.compile(K.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    return model, rng.standard_normal((2, size, size, 3)).astype("f"), np.array([0, 2])


def in_order_of_calls(names, model, x):
    """The names of the layers in the order in which the model calls them, which is not that of `model.layers` in InceptionV3."""
    called, originals = [], {layer: layer.call for layer in model.layers}

    def noted(layer, call):
        return lambda *inputs, **more: (called.append(layer.name), call(*inputs, **more))[1]

    for layer, call in originals.items():
        layer.call = noted(layer, call)
    model(x)
    for layer, call in originals.items():
        layer.call = call
    return [name for name in called if name in names]


@pytest.mark.parametrize("name", SIZES)
def test_an_application_is_counted_as_brute_force_counts_it(name):
    if name in LARGE and not os.environ.get("RELU_PROBE_LARGE_MODELS"):
        pytest.skip("takes up to a minute; runs with RELU_PROBE_LARGE_MODELS=1")
    model, x, y = built(name)
    report = measure(model, (x, y))
    assert (dict(report.unseen), report.never_called) == ({}, ())
    keys = in_order_of_calls(list(report), model, x)
    expected = function_oracle.counts(model, x, y, keys, training=False)
    function_oracle.assert_counted(report, expected)
    assert 0 < report.dead_fraction < 1
