"""The counting kernels count what NumPy counts, to the last position, in every shape and on every way."""

from contextlib import nullcontext

import numpy as np
import oracle
import pytest
import tensorflow as tf
from assertions import assert_report
from models import sequential

from relu_probe import ReluProbe, measure
from relu_probe.counting import call_counts, deferred_nan, kernels, passes
from relu_probe.counting.deferred_nan import may_have_nan

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
    """Fires, flows, and where both: one neuron always, one never."""
    rng = np.random.default_rng(0)
    fires, flows = rng.random(shape) < 0.7, rng.random(shape) < 0.5
    fires[..., 0], flows[..., 0] = True, True
    fires[..., 1] = False
    return fires, flows


def by_numpy(mask, axis):
    return np.moveaxis(mask, axis, -1).reshape(-1, mask.shape[axis]).sum(0)


def counted(shape, axis, xla, known):
    """`(masks, neurons)` as a graph counts them, the size of the batch known to it or not."""
    spec = tf.TensorSpec(shape if known else (None, *shape[1:]), tf.bool)
    fires, flows = masks_of(shape)

    @tf.function(input_signature=[spec, spec], jit_compile=xla is not False, autograph=False)
    def count(fires, flows):  # where it is not known whether XLA compiles it, XLA must be able to
        return kernels.plan(fires.shape, axis, xla)([[fires], [flows, fires], [flows]], axis)

    return count(fires, flows).numpy(), np.concatenate([by_numpy(m, axis) for m in (fires, flows & fires, flows)])


@pytest.mark.parametrize("known", [True, False], ids=["batch known", "batch unknown"])
@pytest.mark.parametrize("xla", [True, False, None])
@pytest.mark.parametrize("name", SHAPES)
def test_counts_are_numpys(name, xla, known):
    found, expected = counted(*SHAPES[name], xla, known)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "xla", "bound"), [("more rows than a byte counts", False, "_BYTE"), ("an image", True, "_BITS")]
)
def test_the_comparison_rejects_blocks_that_are_too_long(name, xla, bound, monkeypatch):
    """256 rows in a byte, or 900 in nine bits, run over into the next neuron or mask."""
    monkeypatch.setattr(kernels, bound, {"_BYTE": 256, "_BITS": 9}[bound])
    monkeypatch.setattr(kernels, "_block_of_places", lambda shape, most: 900 if len(shape) > 2 else 1)
    found, expected = counted(*SHAPES[name], xla, known=True)
    assert (found != expected).any()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("width", [64, 256, 1024])
def test_nan_and_infinite_gradients_on_every_way(width, jit):
    """Each width is counted in another way. A NaN among the inputs of one sample; a gradient that is infinite, which
    the ReLU's own backward pass makes NaN where the neuron is off: no gradient is counted there."""
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
    spoilt = measure(model, (x[:5], y[:5]))["hidden"]
    assert spoilt.nan.tolist() == [True] * 7 + [False] * (width - 7)
    np.testing.assert_array_equal(spoilt.active[7:], active[:5, 7:].sum(0))


@pytest.mark.parametrize("width", [100, 300, 1100])
def test_nan_that_come_and_go_in_a_training_are_seen(width):
    """Neither in the weights at the epoch's end nor in the last batch: the choice to look is made at each step."""
    model = sequential(width, L.ReLU(name="relu"), L.Dense(1))
    x = np.ones((12, width), "float32")
    x[1, 17] = np.nan
    probe = ReluProbe(strict=True)
    model.fit(x, np.ones((12, 1)), batch_size=4, verbose=0, shuffle=False, callbacks=[probe])
    assert np.flatnonzero(probe.report["relu"].nan).tolist() == [17]
    assert probe.report["relu"].active[17] == 11


@pytest.mark.parametrize(("width", "blind"), [(100, False), (300, False), (300, True), (1100, False)])
def test_nan_of_a_trained_layer_are_found_neuron_by_neuron(width, blind, monkeypatch):
    """In its one step, not in its weights: the ReLU has none, and in a subclass nothing tells whose it activates. The planted
    mistake trusts a test that never fires."""
    if blind:
        monkeypatch.setattr(deferred_nan, "may_have_nan", lambda values: tf.constant(False))
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
    """What is infinite is no NaN, nor is a sum that would overflow."""
    largest = np.array(tf.as_dtype(dtype).max, "float64")
    values = np.where(np.arange(70 * size).reshape(70, size) % 3, largest, np.inf)
    values[0, 0] = 0.0
    test = tf.function(may_have_nan)
    assert not test(tf.constant(values, dtype))
    assert not test(tf.zeros((0, size), dtype))
    for place in {0, 1, 69 * size, 70 * size - 1}:
        spoilt = values.copy()
        spoilt.flat[place] = np.copysign(np.nan, sign)
        assert test(tf.constant(spoilt, dtype))


def test_a_negative_value_never_hides_a_nan():
    """No ReLU gives one; a function that only looks like a ReLU might. Then the neurons are looked at."""
    assert may_have_nan(tf.constant([-1.0, np.nan]))
    assert may_have_nan(tf.constant([-0.0, np.nan]))


@pytest.mark.parametrize("width", [256, 1024])
@pytest.mark.parametrize("blind", [False, True], ids=["as it is", "blind to the ReLU"])
def test_infinite_gradients_of_wide_layers_are_counted_where_the_neuron_is_active(blind, width, monkeypatch):
    """An infinite weight of one sample: dL/dz is NaN at the neurons that are off. The planted mistake does not look."""
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
def test_a_fit_counts_what_the_oracle_counts_on_every_way(width):
    """Gradients of both signs: the second layer's weights are of both. Some neurons are dead, and some blocked."""
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


@pytest.mark.parametrize(("spoilt", "jit"), [(np.nan, False), (np.inf, False), (1e30, False), (1e30, True)])
def test_convolutions_count_what_the_oracle_counts(spoilt, jit):
    """XLA takes the places 8, 5 and 3 at a time. What is large and finite makes no NaN."""

    def model(jit):
        K.utils.set_random_seed(0)
        sizes = {"many": (8, 3), "few": (4, 2), "one": (4, (5, 3))}
        layers = [L.Conv2D(*size, activation="relu", name=name) for name, size in sizes.items()]
        layers = [layers[0], L.MaxPooling2D(), *layers[1:], L.Flatten(), L.Dense(1)]
        return sequential((14, 14, 3), *layers, optimizer=K.optimizers.SGD(0.01), jit_compile=jit)

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((11, 14, 14, 3)).astype("float32"), rng.standard_normal((11, 1)).astype("float32")
    x[10, 5, 6, 1] = spoilt  # in the last step: the weights turn NaN with it
    probe = ReluProbe(strict=True)
    model(jit).fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[probe])
    for key, expected in oracle.train(model(False), x, y, 4).items():
        for counts in ("active", "with_gradient"):
            np.testing.assert_array_equal(getattr(probe.report[key], counts), expected[counts])
