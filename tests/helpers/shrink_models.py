"""Models with dead units, and data for them, for the tests of `shrink`."""

import numpy as np
import tensorflow as tf
from models import sequential

from relu_probe import shrink

K, L = tf.keras, tf.keras.layers


def low(units, *dead):
    """A bias initialiser by which the given units are dead."""
    return K.initializers.Constant([-50.0 if unit in (dead or (1,)) else 0.3 for unit in range(units)])


def dead(kind, units, *args, neurons=(1,), **more):
    return kind(units, *args, activation="relu", bias_initializer=low(units, *neurons), **more)


def data(*shape, samples=40):
    return np.random.default_rng(0).standard_normal((samples, *shape)).astype("float32")


def model_of(shape, *layers, **options):
    return sequential(shape, *layers, L.Flatten(), L.Dense(2, name="out"), **options)


def randomized(model):
    """Random statistics and scales in all BatchNormalization layers."""
    rng = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            values = [rng.uniform(0.5, 1.5, w.shape) for w in layer.weights]
            layer.set_weights([np.where(w <= -50, w, value) for w, value in zip(layer.get_weights(), values)])
    return model


def outputs(model, x):
    return [np.asarray(output) for output in tf.nest.flatten(model(tf.nest.map_structure(tf.constant, x)))]


def with_dead_channels(model, share=0.5):
    """Makes a share of the channels of each BatchNormalization dead, wherever a ReLU follows it; the others fire."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            scale, offset, mean, variance = layer.get_weights()
            offset = np.where(rng.random(len(offset)) < share, -100, rng.uniform(0.1, 0.5, len(offset)))
            layer.set_weights([scale, offset, mean + 0.01, variance])
    return model


def bits(model):
    variables = [*model.variables, *(model.optimizer.variables if getattr(model, "optimizer", None) else [])]
    return [np.asarray(tf.convert_to_tensor(v)).tobytes() for v in variables]


def shrunk(model, x, **options):
    """Shrinks the model, and checks that it is not touched and that the new one agrees."""
    before = bits(model)
    found = shrink(model, x, **options)
    assert bits(model) == before
    for a, b in zip(outputs(model, x), outputs(found.model, x)):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())
    assert [w.dtype for w in model.weights] == [w.dtype for w in found.model.weights]
    assert [layer.name for layer in model.layers] == [layer.name for layer in found.model.layers]
    assert found.parameters == (model.count_params(), found.model.count_params())
    return found


def removed(found):
    return {name: units.tolist() for name, units in found.removed.items()}


def left(found):
    return {name: list(reasons) for name, reasons in found.left.items()}
