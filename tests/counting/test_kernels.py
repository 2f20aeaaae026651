"""Tests that the counting kernels give exactly the counts of NumPy, for every shape and with every counting method."""

from contextlib import nullcontext

import numpy as np
import oracle
import pytest
import tensorflow as tf
from assertions import assert_report
from models import sequential

from relu_probe import ReluProbe, measure
from relu_probe.counting import call_counts, kernels, passes
from relu_probe.counting.deferred_nan import joint_nan_mask, largest_or_nan, may_have_nan

pytestmark = pytest.mark.any_keras

K, L = tf.keras, tf.keras.layers
SHAPES = {  # name -> (shape, axis of the neurons)
    "narrow": ((7, 5), -1),
    "more rows than a byte counts": ((700, 1028), -1),
    "more rows than ten bits count": ((2500, 3), -1),
    "an image": ((3, 30, 30, 8), -1),
    "few places": ((400, 2, 2, 4), -1),
    "a prime number of places": ((2, 1031, 4), -1),
    "neurons that are no multiple of four": ((3, 12, 12, 5), -1),
    "channels first": ((2, 4, 9, 9), 1),
}


def masks_of(shape):
    """Returns random masks `(active, gradient)`: where neurons are active, and where a gradient arrives.

    Neuron 0 is active and receives a gradient at every position, and neuron 1 is never active.
    """
    rng = np.random.default_rng(0)
    active, gradient = rng.random(shape) < 0.7, rng.random(shape) < 0.5
    active[..., 0], gradient[..., 0] = True, True
    active[..., 1] = False
    return active, gradient


def by_numpy(mask, axis):
    return np.moveaxis(mask, axis, -1).reshape(-1, mask.shape[axis]).sum(0)


def counted(shape, axis, xla, known, many_layers=False):
    """Returns the counts of three masks by a kernel and by NumPy; the graph knows the batch size if `known`."""
    spec = tf.TensorSpec(shape if known else (None, *shape[1:]), tf.bool)
    active, gradient = masks_of(shape)

    @tf.function(input_signature=[spec, spec], jit_compile=xla is not False, autograph=False)
    def count(active, gradient):  # `xla=None` stands for unknown: XLA must be able to compile this function, too
        way = kernels.plan(active.shape, axis, xla, many_layers)
        return kernels.concat(way([[active], [gradient, active], [gradient]], axis))

    return count(active, gradient).numpy(), np.concatenate(
        [by_numpy(m, axis) for m in (active, gradient & active, gradient)]
    )


@pytest.mark.parametrize("known", [True, False], ids=["batch known", "batch unknown"])
@pytest.mark.parametrize("xla", [True, False, None])
@pytest.mark.parametrize("name", SHAPES)
def test_counts_equal_those_of_numpy(name, xla, known):
    found, expected = counted(*SHAPES[name], xla, known)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("known", [True, False], ids=["batch known", "batch unknown"])
@pytest.mark.parametrize("name", SHAPES)
def test_counts_of_many_layers_equal_those_of_numpy(name, known):
    found, expected = counted(*SHAPES[name], False, known, many_layers=True)
    np.testing.assert_array_equal(found, expected)
    small = len(SHAPES[name][0]) > 2 and SHAPES[name][1] == -1 and np.prod(SHAPES[name][0][1:]) <= kernels.LARGE_IMAGE
    assert (kernels.plan(tf.TensorShape(SHAPES[name][0]), SHAPES[name][1], False, True) is kernels.places) == small


@pytest.mark.once
def test_the_comparison_rejects_places_of_one_mask_only(monkeypatch):
    monkeypatch.setattr(kernels, "places", lambda masks, axis: kernels.sums([mask[:1] for mask in masks], axis))
    found, expected = counted((3, 12, 12, 5), -1, False, True, many_layers=True)
    assert (found != expected).any()


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "xla", "bound"), [("more rows than a byte counts", False, "_BYTE"), ("an image", True, "_BITS")]
)
def test_the_comparison_rejects_blocks_that_are_too_long(name, xla, bound, monkeypatch):
    """The counts of 256 rows in a byte, or of 900 positions in nine bits, overflow into the next neuron or mask."""
    monkeypatch.setattr(kernels, bound, {"_BYTE": 256, "_BITS": 9}[bound])
    monkeypatch.setattr(kernels, "_block_of_places", lambda shape, most: 900 if len(shape) > 2 else 1)
    found, expected = counted(*SHAPES[name], xla, known=True)
    assert (found != expected).any()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("width", [64, 256, 1024])
def test_nan_and_infinite_gradients_with_every_counting_method(width, jit):
    """Each width is counted with another method.

    One sample has a NaN among its inputs, another an infinite gradient. The backward pass of the ReLU turns the infinite
    gradient into NaN where the neuron is off; no gradient may be counted there.
    """
    model = sequential(4, L.Dense(width, "relu", name="hidden"), L.Dense(1), jit_compile=jit)
    rng = np.random.default_rng(0)
    x, y, weight = rng.standard_normal((9, 4)).astype("float32"), np.ones((9, 1)), np.ones(9)
    weight[3] = np.inf
    clean = measure(model, (x, y, weight))["hidden"]
    active = model.layers[0](x).numpy() > 0
    np.testing.assert_array_equal(clean.active, active.sum(0))
    np.testing.assert_array_equal(clean.with_gradient, active.sum(0))
    assert not clean.nan.any()
    x[5, 0] = np.nan
    assert measure(model, (x, y))["hidden"].nan.all()
    kernel = model.layers[0].kernel
    kernel.assign(tf.concat([kernel[:, :7] * np.nan, kernel[:, 7:]], 1))
    with_nan = measure(model, (x[:5], y[:5]))["hidden"]
    assert with_nan.nan.tolist() == [True] * 7 + [False] * (width - 7)
    np.testing.assert_array_equal(with_nan.active[7:], active[:5, 7:].sum(0))


@pytest.mark.parametrize("width", [100, 300, 1100])
def test_a_nan_that_occurs_in_one_step_only_is_reported(width):
    """The NaN is neither in the weights at the end of the epoch nor in the last batch, so every step must test for NaN."""
    model = sequential(width, L.ReLU(name="relu"), L.Dense(1))
    x = np.ones((12, width), "float32")
    x[1, 17] = np.nan
    probe = ReluProbe(strict=True)
    model.fit(x, np.ones((12, 1)), batch_size=4, verbose=0, shuffle=False, callbacks=[probe])
    assert np.flatnonzero(probe.report["relu"].nan).tolist() == [17]
    assert probe.report["relu"].active[17] == 11


def test_nan_of_narrow_and_wide_layers_in_one_model():
    """The NaN of a narrow layer are located at every step, those of a wide one only if there are any."""
    x = K.Input((300,))
    outputs = [L.ReLU(name="wide")(x), L.ReLU(name="narrow")(x[:, :20])]
    model = K.Model(x, L.Dense(1)(L.Concatenate()(outputs)))
    model.compile(K.optimizers.SGD(0.0), "mse")
    data = np.ones((12, 300), "float32")
    data[1, 17], data[6, 200] = np.nan, np.nan
    probe = ReluProbe(strict=True)
    model.fit(data, np.ones((12, 1)), batch_size=4, verbose=0, shuffle=False, callbacks=[probe])
    assert np.flatnonzero(probe.report["wide"].nan).tolist() == [17, 200]
    assert np.flatnonzero(probe.report["narrow"].nan).tolist() == [17]


@pytest.mark.parametrize(("width", "blind"), [(100, False), (300, False), (300, True), (1100, False)])
def test_nan_in_a_training_step_are_reported_for_each_neuron(width, blind, monkeypatch):
    """The NaN show only in the outputs of the single step.

    The ReLU layer has no weights, and in a subclassed model nothing tells which layer feeds it. The planted mistake uses a
    NaN test that is always False.
    """
    if blind:
        monkeypatch.setattr(call_counts, "may_have_nan", lambda values: tf.constant(False))
    layers = [L.Dense(width), L.Rescaling(2.0), L.ReLU(name="relu"), L.Dense(1)]

    class Net(K.Model):
        def __init__(self):
            super().__init__()
            self.parts = layers

        def call(self, x):
            for layer in self.parts:
                x = layer(x)
            return x

    model = Net()
    model(np.ones((8, 4), "float32"))
    model.compile(K.optimizers.SGD(0.0), "mse")
    kernel = np.random.default_rng(0).standard_normal((4, width))
    kernel[:, [5, 17]] = np.nan
    layers[0].set_weights([kernel, np.zeros(width)])
    x = np.random.default_rng(1).standard_normal((8, 4)).astype("float32")
    model.fit(x, np.ones((8, 1)), batch_size=8, verbose=0, callbacks=[probe := ReluProbe(strict=True)])
    assert np.flatnonzero(probe.report["relu"].nan).tolist() == ([] if blind else [5, 17])
    np.testing.assert_array_equal(probe.report["relu"].active, (x @ kernel.astype("float32") > 0).sum(0))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("size", [1, 3, 8, 17, 513])
@pytest.mark.parametrize("sign", [1, -1])
def test_no_nan_is_missed(size, dtype, sign):
    """The test finds every NaN, and reports neither infinite values nor large ones whose sum would overflow."""
    largest = np.array(tf.as_dtype(dtype).max, "float64")
    values = np.where(np.arange(70 * size).reshape(70, size) % 3, largest, np.inf)
    values[0, 0] = 0.0
    test = tf.function(may_have_nan)
    assert not test(tf.constant(values, dtype))
    assert not test(tf.zeros((0, size), dtype))
    for place in {0, 1, 69 * size, 70 * size - 1}:
        with_nan = values.copy()
        with_nan.flat[place] = np.copysign(np.nan, sign)
        assert test(tf.constant(with_nan, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(2, 1, 1, 9), (8, 4, 4, 16), (33, 9, 5, 3), (257, 3, 3, 2)])
def test_the_largest_values_show_the_neurons_with_nan(shape, dtype):
    """TensorFlow's maximum passes NaN on, wherever they are; `np.fmax`, which does not, is the planted mistake."""
    rng, missed = np.random.default_rng(0), 0
    find = tf.function(lambda values: joint_nan_mask([largest_or_nan(values, -1)]))
    for _ in range(50):
        values = np.maximum(rng.standard_normal(shape), 0.0)
        places = [tuple(rng.integers(0, shape)) for _ in range(5)]
        for place, value in zip(places, [np.inf, tf.as_dtype(dtype).max, np.nan, -np.nan, np.nan]):
            values[place] = value
        expected = np.isnan(values).any((0, 1, 2))
        np.testing.assert_array_equal(find(tf.constant(values, dtype)), expected)
        missed += (np.isnan(np.fmax.reduce(values, (0, 1, 2))) != expected).any()
    assert missed
    assert not find(tf.zeros((0, *shape[1:]), dtype)).numpy().any()


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("size", [6, 70], ids=["all images small", "large images too"])
def test_nan_of_many_images(size, blind, monkeypatch):
    """Twelve layers, of which the NaN of some are found by the largest values. The planted mistake finds none."""
    if blind:
        monkeypatch.setattr(
            call_counts, "largest_or_nan", lambda values, axis: tf.zeros(values.shape[axis], values.dtype)
        )
    x = K.Input((size, size, 8))
    parts = [L.ReLU(name=f"relu{i}")(L.AveragePooling2D(2)(x) if size > 6 and i % 2 else x) for i in range(12)]
    model = K.Model(x, L.Dense(1)(L.Concatenate()([L.GlobalAveragePooling2D()(part) for part in parts])))
    model.compile(K.optimizers.SGD(0.0), "mse")
    data = np.random.default_rng(0).standard_normal((6, size, size, 8)).astype("float32")
    clean = data > 0
    data[1, 2:4, 2:4, 5] = np.nan  # a whole window of the pooling
    clean[1, 2:4, 2:4, 5] = False
    probe = ReluProbe(strict=True)
    model.fit(data, np.ones((6, 1)), batch_size=2, verbose=0, shuffle=False, callbacks=[probe])
    found = {name: np.flatnonzero(layer.nan).tolist() for name, layer in probe.report.items()}
    small = [name for i, name in enumerate(found) if size == 6 or i % 2]
    assert len(found) == 12
    assert found == {name: [] if blind and name in small else [5] for name in found}
    np.testing.assert_array_equal(probe.report["relu0"].active, clean.sum((0, 1, 2)))


def test_a_negative_value_never_hides_a_nan():
    """No ReLU returns a negative value, but a custom function might; the mask of each neuron then decides."""
    assert may_have_nan(tf.constant([-1.0, np.nan]))
    assert may_have_nan(tf.constant([-0.0, np.nan]))


@pytest.mark.parametrize("width", [256, 1024])
@pytest.mark.parametrize("blind", [False, True], ids=["correct", "planted mistake"])
def test_infinite_gradients_of_wide_layers_are_counted_only_at_active_neurons(blind, width, monkeypatch):
    """One sample has an infinite weight, so that dL/dz is NaN at the neurons that are off.

    The planted mistake counts gradients without checking that the neuron is active.
    """
    if blind:
        monkeypatch.setattr(call_counts, "masks_of", lambda call: [mask[:1] for mask in passes.masks_of(call)])
    model = sequential(4, L.Dense(width, "relu", name="hidden"), L.Dense(1))
    x, weight = np.random.default_rng(0).standard_normal((9, 4)).astype("float32"), np.ones(9)
    weight[3] = np.inf
    active = (model.layers[0](x).numpy() > 0).sum(0)
    probe = ReluProbe(strict=True)
    with pytest.raises(ValueError, match="with_gradient > active") if blind else nullcontext():
        model.fit(x, np.ones((9, 1)), batch_size=9, sample_weight=weight, verbose=0, callbacks=[probe])
    if not blind:
        np.testing.assert_array_equal(probe.report["hidden"].active, active)
        np.testing.assert_array_equal(probe.report["hidden"].with_gradient, active)


@pytest.mark.parametrize("width", [64, 130, 256, 1024])
def test_a_fit_equals_the_oracle_with_every_counting_method(width):
    """Gradients have both signs, as the weights of the second layer do. Some neurons are dead, and some are blocked."""
    K.utils.set_random_seed(0)
    bias = np.where(np.arange(width) % 5 == 0, -50.0, 0.1)
    layers = [L.Dense(width, "relu", name=name, bias_initializer=K.initializers.Constant(bias)) for name in "ab"]
    model = sequential(4, *layers, L.Dense(1))
    out = tf.convert_to_tensor(model.layers[-1].kernel).numpy()
    model.layers[-1].kernel.assign(np.where(np.arange(width)[:, None] % 7 == 0, 0, out))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((23, 4)).astype("float32"), rng.standard_normal((23, 1)).astype("float32")
    expected = oracle.measure(model, oracle.batches(x, y, 8), training=True)
    probe = ReluProbe(strict=True)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[probe])
    assert_report(probe.report, expected, 23)
    for key, layer in probe.report.layers.items():
        assert 0 < np.count_nonzero(layer.with_gradient) < np.count_nonzero(layer.active) < width or key == "a"


@pytest.mark.parametrize(("extreme", "jit"), [(np.nan, False), (np.inf, False), (1e30, False), (1e30, True)])
def test_convolutions_equal_the_oracle(extreme, jit):
    """With XLA, the places of the three layers are counted 8, 5 and 3 at a time. A large finite input causes no NaN."""

    def model(jit):
        K.utils.set_random_seed(0)
        sizes = {"many": (8, 3), "few": (4, 2), "one": (4, (5, 3))}
        layers = [L.Conv2D(*size, activation="relu", name=name) for name, size in sizes.items()]
        layers = [layers[0], L.MaxPooling2D(), *layers[1:], L.Flatten(), L.Dense(1)]
        return sequential((14, 14, 3), *layers, optimizer=K.optimizers.SGD(0.01), jit_compile=jit)

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((11, 14, 14, 3)).astype("float32"), rng.standard_normal((11, 1)).astype("float32")
    x[10, 5, 6, 1] = extreme  # in the last step, because it can turn the weights NaN
    probe = ReluProbe(strict=True)
    model(jit).fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[probe])
    for key, expected in oracle.train(model(False), x, y, 4).items():
        for counts in ("active", "with_gradient"):
            np.testing.assert_array_equal(getattr(probe.report[key], counts), expected[counts])
