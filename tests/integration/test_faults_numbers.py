"""Faults of the numbers: counters beyond 2**31, sums that overflow, float16, subnormals, signed zeros."""

import harm
import numpy as np
import oracle
import pytest
import tensorflow as tf
from assertions import assert_counts
from keras_version import LEGACY
from models import sequential

from relu_probe import LayerReport, ReluProbe, measure
from relu_probe.measuring.model_state import ModelState

K, L = tf.keras, tf.keras.layers
X, Y = harm.data()


def direct(kernel, optimizer="sgd", loss="mse", dtype="float32", **compile_args):
    """A model of one ReLU layer with this kernel and biases of zero, whose neurons reach the output with weight 1."""
    kernel = np.array(kernel, "f")
    hidden = L.Dense(kernel.shape[1], "relu", name="hidden")
    last = L.Dense(1, kernel_initializer="ones", dtype=dtype)
    model = sequential(len(kernel), hidden, last, optimizer=optimizer, loss=loss, **compile_args)
    hidden.set_weights([kernel, np.zeros(kernel.shape[1], "f")])
    return model


def small(y, p):
    """A loss so small that gradients do not overflow for large activations."""
    return tf.reduce_mean(tf.cast(p, tf.float32), -1) * 1e-30


# --- counters ---------------------------------------------------------------------------------------------------------


class Plant(K.callbacks.Callback):
    """Adds `more` to the counters after the first batch of each epoch, as if the epoch were very long."""

    def __init__(self, more):
        super().__init__()
        self.more = more

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            (block,) = ModelState.of(self.model).training_counters.blocks._blocks.values()
            counts, _, steps, *_ = block.variables  # of 8 samples each
            counts.assign_add(tf.fill(counts.shape, tf.constant(self.more, tf.int64)))
            steps.assign_add(self.more // 8)


def test_counts_beyond_2_to_the_31():
    """With the first number, training steps carry the counters beyond 2**31."""
    plain = ReluProbe(strict=True)
    left = harm.fitted(harm.net(), [plain], shuffle=False)
    for more in (2**31 - 16, 2**40):
        probe = ReluProbe(strict=True)
        assert harm.same(left, harm.fitted(harm.net(), [probe, Plant(more)], shuffle=False))
        for few, many in zip(plain.reports, probe.reports):
            layer = many["hidden"]
            expected = {name: getattr(few["hidden"], name) + more for name in ("active", "with_gradient", "positions")}
            assert_counts(layer, expected)
            assert many.samples == few.samples + more
            assert layer.activation_rate.max() <= 1
            assert f"{many.samples:,}" in str(many)
            assert LayerReport.from_dict(layer.to_dict()) == layer
            assert (layer + layer).positions == 2 * expected["positions"]
        narrow = {name: np.asarray(value).astype(np.int32) for name, value in expected.items()}
        with pytest.raises(AssertionError):  # the planted mistake: 32 bits
            assert_counts(layer, narrow)


# --- large numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "mode"),
    [("float32", {}), ("float32", {"jit_compile": True}), ("mixed_bfloat16", {"run_eagerly": True})],
    ids=["graph", "jit", "bfloat16, eager"],
    indirect=["policy"],
)
def test_activations_of_1e38_whose_sum_overflows(policy, mode):
    """Their float32 sum is infinite and not NaN. The layer's own sums are float64, and finite."""
    x, y = np.full((8, 2), 1e38, "f"), np.zeros((8, 1), "f")
    with np.errstate(over="ignore"):
        assert np.isinf(x.sum(axis=0, dtype="f")).all()
    model = direct(np.eye(2), K.optimizers.SGD(0.0), loss=small, **mode)
    expected = oracle.measure(model, oracle.batches(x, y, 8))["hidden"]
    probe, before = ReluProbe(strict=True, activation_sum=True), model.get_weights()
    model.fit(x, y, verbose=0, callbacks=[probe])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    for layer in (probe.report["hidden"], measure(model, (x, y))["hidden"]):
        assert_counts(layer, expected)
        assert layer.active.tolist() == layer.with_gradient.tolist() == [8, 8]
        assert not layer.nan.any()
        np.testing.assert_allclose(layer.activation_sum, 8e38, rtol=0.01)
        assert not layer.dormant(0.5).any()


def test_convolution_outputs_of_1e38():
    """A convolution is summed in two stages: inf + inf is inf, while inf - inf would be NaN."""
    x = np.full((8, 4, 2), 1e38, "f")
    kernel = np.eye(2, dtype="f")[None]
    conv = L.Conv1D(2, 1, activation="relu", name="hidden")
    model = K.Sequential([K.Input((4, 2)), conv])
    conv.set_weights([kernel * [[1, -1]], np.zeros(2, "f")])
    layer = measure(model, x)["hidden"]
    assert layer.active.tolist() == [32, 0]
    assert not layer.nan.any()
    assert layer.dead.tolist() == [False, True]


CASES = {  # inputs, kernel, which neurons are active, which are NaN
    "-inf": ([-np.inf, -np.inf], [[1, 1], [1, 1]], [0, 0], [0, 0]),
    "inf - inf, inf + inf": ([np.inf, -np.inf], [[1, 1], [1, -1]], [0, 8], [1, 0]),
    "-0.0": ([-0.0, -0.0], [[1, 1], [1, -1]], [0, 0], [0, 0]),
    "subnormal, smallest normal": ([1e-40, 1.2e-38], [[1, 0], [0, 1]], [0, 8], [0, 0]),  # TensorFlow flushes to zero
}


def test_infinities_signed_zeros_and_subnormals():
    watched, plain = direct(np.eye(2), loss=small), direct(np.eye(2), loss=small)
    _, *others = watched.get_weights()
    for name, (values, kernel, active, nan) in CASES.items():
        x, y, probe = np.full((8, 2), values, "f"), np.zeros((8, 1), "f"), ReluProbe(strict=True)
        for model in (watched, plain):
            model.set_weights([np.array(kernel, "f"), *others])
        expected = oracle.measure(watched, oracle.batches(x, y, 8))["hidden"]
        layer = measure(watched, (x, y))["hidden"]
        assert_counts(layer, expected)
        assert (layer.active.tolist(), layer.nan.tolist()) == (active, nan), name
        assert layer.dead.tolist() == [not a and not n for a, n in zip(active, nan)]
        left = harm.fitted(watched, [probe], x, y, epochs=1)
        assert harm.same(left, harm.fitted(plain, [], x, y, epochs=1))
        assert_counts(probe.report["hidden"], expected)


def test_no_neuron_is_dormant_if_an_activation_sum_is_not_finite():
    for strange in (np.inf, np.nan):
        layer = LayerReport(8, 8, [8, 8, 0], activation_sum=[strange, 8.0, 0.0])
        assert not layer.dormant(0.0).any()
        assert not layer.dormant(0.025).any()
    assert LayerReport(8, 8, [8, 8, 0], activation_sum=[8.0, 8.0, 0.0]).dormant(0.0).tolist() == [False, False, True]


# --- float16 ----------------------------------------------------------------------------------------------------------


def scale_of(model):
    return float(model.optimizer.loss_scale if LEGACY else tf.convert_to_tensor(model.optimizer.dynamic_scale))


def half(**more):
    K.utils.set_random_seed(1)
    kernel = np.random.default_rng(0).standard_normal((4, 6))
    return direct(kernel, K.mixed_precision.LossScaleOptimizer(K.optimizers.Adam(0.0)), **more)


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
@pytest.mark.parametrize("fault", ["gradients", "activations", "NaN"])
def test_float16_overflows_and_the_scaler_skips_steps(policy, fault):
    """Skipped steps leave the weights unchanged, so only the batches show the NaN. For -inf, the fused ReLU of a graph gives
    NaN on some CPUs (AVX-512 FP16), and 0 on others.
    """
    x, y, probe = X.copy(), Y * (1e3 if fault == "gradients" else 1), ReluProbe(strict=True)
    x[9, 1] = {"gradients": x[9, 1], "activations": 6e5, "NaN": np.nan}[fault]
    model = half()
    expected = oracle.train(half(), x, y, 8)["hidden"]
    left = harm.fitted(model, [probe], x, y)
    assert harm.same(left, harm.fitted(half(), [], x, y))
    assert scale_of(model) < 2**15
    assert expected["nan"].all() if fault == "NaN" else fault == "activations" or not expected["nan"].any()
    for report in probe.reports:
        assert_counts(report["hidden"], expected)
        np.testing.assert_array_equal(report["hidden"].nan, expected["nan"])


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_a_measurement_uses_the_current_loss_scale(policy):
    """An infinite gradient times a weight of zero is NaN, which counts as a gradient. So an old scale hides blocked neurons."""
    model = half(loss=lambda y, p: tf.reduce_mean(tf.cast(p, tf.float32), -1) * 100, dtype="mixed_float16")
    *others, kernel, bias = model.get_weights()
    kernel[0] = 0
    model.set_weights([*others, kernel, bias])
    assert not measure(model, (X, Y))["hidden"].blocked[0]  # at first the scale is too large for this loss
    harm.fitted(model, [], X, Y)
    found = measure(model, (X, Y))["hidden"]
    assert_counts(found, oracle.measure(model, oracle.batches(X, Y, 8))["hidden"])
    assert found.blocked[0]


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_subnormals_of_float16_are_active(policy):
    """6e-8 is the smallest positive float16, and a normal float32."""
    layer = measure(direct(np.eye(2)), np.full((8, 2), [6e-8, 2e-8], "f"))["hidden"]
    assert layer.active.tolist() == [8, 0]
