"""Bounds through one layer, against its values at the corners at which each output is smallest and largest."""

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import diagnose, measure
from relu_probe.diagnosis import bounded_layers
from relu_probe.diagnosis.bounded_layers import Unbounded, bounds_after
from relu_probe.diagnosis.interval_arithmetic import Arithmetic, Box

K, L = tf.keras, tf.keras.layers
FLOAT32 = Arithmetic.of(np.float32)
FIRST = {"data_format": "channels_first"}
LAYERS = {
    "Dense": (lambda: L.Dense(3), (4,)),
    "Dense on sequences": (lambda: L.Dense(3), (2, 4)),
    "Conv1D, causal": (lambda: L.Conv1D(3, 3, padding="causal", dilation_rate=2), (6, 2)),
    "Conv1D, same": (lambda: L.Conv1D(3, 3, padding="same"), (5, 2)),
    "Conv2D, valid": (lambda: L.Conv2D(3, 2), (4, 5, 2)),
    "Conv2D, same, strides": (lambda: L.Conv2D(3, 3, padding="same", strides=2), (4, 5, 2)),
    "Conv2D in groups": (lambda: L.Conv2D(6, 2, groups=2), (4, 4, 4)),
    "Conv2D, channels first": (lambda: L.Conv2D(3, 3, padding="same", **FIRST), (2, 4, 5)),
    "Conv3D": (lambda: L.Conv3D(2, 2, padding="same"), (3, 3, 3, 2)),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(3, 3, strides=2, padding="same"), (3, 3, 2)),
    "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(3, depth_multiplier=2), (5, 2)),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(3, padding="same", depth_multiplier=2), (4, 4, 2)),
    "BatchNormalization": (L.BatchNormalization, (3, 4)),
    "BatchNormalization, axis 1": (lambda: L.BatchNormalization(axis=1, scale=False), (3, 4)),
    "MaxPooling2D": (lambda: L.MaxPooling2D(2, padding="same"), (5, 4, 2)),
    "MaxPooling1D, channels first": (lambda: L.MaxPooling1D(2, **FIRST), (2, 5)),
    "AveragePooling2D": (lambda: L.AveragePooling2D(2, padding="same"), (5, 4, 2)),
    "GlobalAveragePooling2D": (L.GlobalAveragePooling2D, (3, 4, 2)),
    "GlobalAveragePooling2D, channels first": (lambda: L.GlobalAveragePooling2D(keepdims=True, **FIRST), (2, 3, 4)),
    "GlobalMaxPooling1D": (L.GlobalMaxPooling1D, (3, 2)),
    "ZeroPadding2D": (lambda: L.ZeroPadding2D(((1, 0), (2, 1))), (2, 3, 2)),
    "Cropping1D": (lambda: L.Cropping1D((1, 2)), (5, 2)),
    "UpSampling2D": (lambda: L.UpSampling2D(2), (2, 3, 2)),
    "Flatten": (L.Flatten, (2, 3, 2)),
    "Flatten, channels first": (lambda: L.Flatten(**FIRST), (2, 3, 2)),
    "Reshape": (lambda: L.Reshape((6, 2)), (2, 3, 2)),
    "Permute": (lambda: L.Permute((3, 1, 2)), (2, 3, 4)),
    "Dropout": (lambda: L.Dropout(0.5), (3,)),
    "ReLU": (L.ReLU, (3,)),  # before its activation: the identity
}


def built(make, shape):
    """The layer with random weights, the moving statistics of BatchNormalization included."""
    layer, rng = make(), np.random.default_rng(0)
    layer(tf.zeros((1, *shape)))
    positive = ("variance",)
    draw = [
        np.abs(rng.normal(size=w.shape)) + 0.1 if any(p in w.name for p in positive) else rng.normal(size=w.shape)
        for w in layer.weights
    ]
    layer.set_weights(draw)
    return layer


def random_box(shape, seed=0):
    low = np.random.default_rng(seed).normal(size=shape)
    box = Box(low, low + np.random.default_rng(seed + 1).uniform(0, 2, shape))
    return Box(*(end.astype(np.float32).astype(np.float64) for end in box))


def extremes(layer, box):
    """The smallest and largest value of each output of a layer that is affine or monotone, from its own derivatives."""
    x = tf.constant(box.low[None], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=False) if isinstance(layer, (L.BatchNormalization, L.Dropout)) else layer(x)
    rising = np.asarray(tape.jacobian(y, x)).reshape(-1, *box.low.shape) >= 0
    ends = (np.where(rising, *ends).astype(np.float32) for ends in ((box.low, box.high), (box.high, box.low)))
    pick = np.arange(len(rising))
    return tuple(
        np.asarray(layer(end)).reshape(len(rising), -1)[pick, pick].reshape(y.shape[1:]).astype(float) for end in ends
    )


def check(layer, box):
    found, (low, high) = bounds_after(layer, [box], FLOAT32), extremes(layer, box)
    assert np.all(found.low <= low)
    assert np.all(found.high >= high)
    assert np.allclose(found.low, low, atol=1e-4)
    assert np.allclose(found.high, high, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "ReLU"])
def test_the_bounds_are_the_extremes_of_each_output(name):
    make, shape = LAYERS[name]
    check(built(make, shape), random_box(shape))


def test_a_relu_is_left_to_its_activation():
    assert bounds_after(L.ReLU(), [box := random_box((3,))], FLOAT32) is box


@pytest.mark.once
@pytest.mark.parametrize("name", ["Conv2D, same, strides", "BatchNormalization", "AveragePooling2D"])
def test_a_missing_part_of_the_box_is_found(name, monkeypatch):
    """The planted mistake: the lower ends are taken for both."""
    make, shape = LAYERS[name]
    monkeypatch.setattr(bounded_layers, "_rule", lambda *args, rule=bounded_layers._rule: _with_low_only(rule(*args)))
    with pytest.raises(AssertionError):
        check(built(make, shape), random_box(shape))


def _with_low_only(rule):
    return lambda layer, boxes, arithmetic: rule(layer, [Box(box.low, box.low) for box in boxes], arithmetic)


def test_a_separable_convolution_is_bounded_from_above_and_below():
    layer = built(lambda: L.SeparableConv2D(3, 2, padding="same", strides=2), (4, 4, 2))
    box = random_box((4, 4, 2))
    found, (low, high) = bounds_after(layer, [box], FLOAT32), extremes(layer, box)
    assert np.all(found.low <= low)
    assert np.all(found.high >= high)
    point = Box(box.low, box.low)
    assert np.allclose(bounds_after(layer, [point], FLOAT32).high, np.asarray(layer(point.low[None]))[0], atol=1e-4)


def test_sums_and_concatenations():
    a, b = random_box((2, 3), 0), random_box((2, 3), 5)
    added = bounds_after(L.Add(), [a, b], FLOAT32)
    assert np.allclose(added.low, a.low + b.low)
    assert np.allclose(added.high, a.high + b.high)
    joined = bounds_after(L.Concatenate(axis=1), [a, b], FLOAT32)
    assert np.array_equal(joined.high, np.concatenate([a.high, b.high], 0))
    assert np.array_equal(bounds_after(L.Concatenate(), [a, b], FLOAT32).low, np.concatenate([a.low, b.low], 1))


@pytest.mark.parametrize("seed", range(5))
def test_rounding_of_a_scaling_in_any_order_stays_within_the_bounds(seed):
    """Cancelling terms of very different sizes, in the two orders in which Keras 3 and tf_keras compute them."""
    rng = np.random.default_rng(seed)
    mean = (rng.normal(size=200) * 2.0 ** rng.integers(0, 24, 200)).astype(np.float32)
    x = (mean * (1 + rng.normal(size=200) * 2.0**-20)).astype(np.float32)
    scale, offset = (rng.normal(size=200).astype(np.float32) for _ in range(2))
    box = bounded_layers.through_scaling(Box(x.astype(float), x.astype(float)), mean, scale, offset, FLOAT32)
    for value in ((x - mean) * scale + offset, x * scale + (offset - mean * scale)):
        assert value.dtype == np.float32
        assert np.all((box.low <= value) & (value <= box.high))
    exact = (x.astype(float) - mean) * scale + offset
    assert np.any(np.abs(x * scale + (offset - mean * scale) - exact) > 1e-3)  # so it is the rounding that matters


def test_what_may_overflow_stops_the_bounds():
    layer = built(L.BatchNormalization, (3,))
    layer.moving_variance.assign([-1.0, 1, 1])  # the scale is NaN
    with pytest.raises(Unbounded, match=layer.name):
        bounds_after(layer, [random_box((3,))], FLOAT32)
    huge = Box(np.full((4, 2), 2e38), np.full((4, 2), 2e38))
    with pytest.raises(Unbounded, match="add"):
        bounds_after(L.Add(name="add"), [huge, huge], FLOAT32)
    with pytest.raises(Unbounded, match="average"):  # the sum of four such values overflows, their average does not
        bounds_after(L.GlobalAveragePooling1D(name="average"), [huge], FLOAT32)


@pytest.mark.parametrize(
    "make", [L.LayerNormalization, L.LeakyReLU, lambda: L.ReLU(negative_slope=0.1), lambda: L.Dense(2, "tanh")]
)
def test_an_unknown_layer_is_named(make):
    layer = make()
    layer(np.zeros((1, 3)))
    with pytest.raises(Unbounded) as stopped:
        bounds_after(layer, [random_box((3,))], FLOAT32)
    assert str(stopped.value) == layer.name


# --- whole models -----------------------------------------------------------------------------------------------------


def image_model():
    """Convolutions, BatchNormalization, pooling, a residual and a concatenation, with many dead channels."""
    low = K.initializers.RandomNormal(-1.0, 1.0, seed=1)
    x = K.Input((6, 6, 2))
    a = L.Conv2D(8, 3, padding="same", bias_initializer=low, activation="relu", name="a")(x)
    b = L.ReLU(6.0, name="b")(L.BatchNormalization(beta_initializer=low)(L.DepthwiseConv2D(3, padding="same")(a)))
    c = L.Activation("relu", name="c")(L.Conv2D(8, 1, bias_initializer=low)(L.Add()([a, b])))
    both = L.MaxPooling2D(2)(L.Concatenate()([c, L.Dropout(0.5)(a)]))
    d = L.Dense(16, "relu", bias_initializer=low, name="d")(L.Flatten()(both))
    model = K.Model(x, L.Dense(1)(d))
    model.compile("sgd", "mse")
    return model


def test_a_certified_channel_is_dead_on_every_input_in_the_box():
    model, rng = image_model(), np.random.default_rng(0)
    found = diagnose(model, np.zeros((1, 6, 6, 2)), bounds=(-0.1, 0.1))
    points = np.concatenate([rng.integers(0, 2, (100, 6, 6, 2)) * 0.2 - 0.1, rng.uniform(-0.1, 0.1, (100, 6, 6, 2))])
    report = measure(model, points)
    for key, layer in found.layers.items():
        assert layer.bounds_stopped_at == "", key
        assert not np.any(layer.certified & ~report[key].dead), key
    assert [key for key, layer in found.layers.items() if layer.certified.any()] == ["a", "b", "c", "d"]
    wide = measure(model, points * 100)
    assert any(np.any(layer.certified & ~wide[key].dead) for key, layer in found.layers.items())  # the check can fail


def test_channels_first_and_sequences():
    low = K.initializers.Constant([-50.0, 0, 0])
    model = sequential(
        (2, 5, 4),
        L.Conv2D(3, 3, bias_initializer=low, **FIRST),
        L.BatchNormalization(axis=1),
        L.ReLU(name="act"),
        L.Flatten(**FIRST),
        L.Dense(3, "relu", bias_initializer=low, name="hidden"),
    )
    found = diagnose(model, np.zeros((2, 2, 5, 4)), bounds=(-1, 1)).layers
    assert [layer.bounds_stopped_at for layer in found.values()] == ["", ""]
    assert [layer.certified[0] for layer in found.values()] == [True, True]
