"""Tests that counts equal exactly those of a hand-written NumPy network, whose two passes are plain loops."""

import numpy as np
import pytest
import tensorflow as tf
from assertions import assert_report
from models import sequential

from relu_probe import ReluProbe, measure

K, L = tf.keras, tf.keras.layers
N = 37


def small_integers(rng, *shape):
    """Returns integers, whose sums are exact in float32: rounding moves no pre-activation across zero."""
    return rng.integers(-3, 4, shape).astype("float32")


def network(seed, **compile_args):
    """Returns a 6-5-4-1 network, its weights and data.

    In the first hidden layer, neuron 0 is dead (by its bias) and neuron 1 is blocked (its outgoing weights are zero).
    """
    rng = np.random.default_rng(seed)
    weights = [small_integers(rng, 6, 5), small_integers(rng, 5), small_integers(rng, 5, 4), small_integers(rng, 4)]
    weights += [small_integers(rng, 4, 1), small_integers(rng, 1)]
    weights[0][:, 1], weights[1][:2], weights[2][1] = 1, (-100, 1), 0
    hidden = [L.Dense(5, "relu", name="a"), L.Dense(4, "relu", name="b")]
    model = sequential(6, *hidden, L.Dense(1), **compile_args)
    model.set_weights(weights)
    return model, weights, (small_integers(rng, N, 6), small_integers(rng, N, 1))


def by_hand(weights, data):
    """Counts with loops over samples and neurons, forwards and backwards."""
    w1, b1, w2, b2, w3, b3 = (w.astype(float) for w in weights)
    units = {"a": 5, "b": 4}
    counts = {name: {"active": np.zeros(n, int), "with_gradient": np.zeros(n, int)} for name, n in units.items()}
    for x, y in zip(*data):
        z1 = [sum(x[i] * w1[i, j] for i in range(6)) + b1[j] for j in range(5)]
        a1 = [max(z, 0) for z in z1]
        z2 = [sum(a1[i] * w2[i, j] for i in range(5)) + b2[j] for j in range(4)]
        a2 = [max(z, 0) for z in z2]
        out = sum(a2[i] * w3[i, 0] for i in range(4)) + b3[0]
        d_out = 2 * (out - y[0]) / N
        d_z2 = [d_out * w3[j, 0] * (z2[j] > 0) for j in range(4)]
        d_z1 = [sum(d_z2[k] * w2[j, k] for k in range(4)) * (z1[j] > 0) for j in range(5)]
        for name, z, d in (("a", z1, d_z1), ("b", z2, d_z2)):
            counts[name]["active"] += np.array(z) > 0
            counts[name]["with_gradient"] += np.array(d) != 0
    return {name: {**layer, "positions": len(data[0])} for name, layer in counts.items()}


@pytest.mark.parametrize("seed", range(5))
def test_measure_equals_the_loops(seed):
    model, weights, data = network(seed)
    report, expected = measure(model, data), by_hand(weights, data)
    assert_report(report, expected, N)
    assert report["a"].dead[0]
    assert report["a"].blocked[1]
    assert report.source == "measure"
    assert report.epoch is None
    for size in (1, 5, N, 1000):
        assert measure(model, data, batch_size=size) == report
    order = np.random.default_rng(0).permutation(N)
    assert measure(model, (data[0][order], data[1][order])) == report


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 3}])
def test_fit_equals_the_loops(options):
    model, weights, data = network(0, **options)
    probe, expected = ReluProbe(strict=True), by_hand(weights, data)
    for _ in range(2):  # a second fit reuses Keras's traced function
        batch = 13 if "steps_per_execution" in options else 10  # the last batch is a partial one
        model.fit(*data, batch_size=batch, epochs=2, verbose=0, callbacks=[probe], validation_data=data)
        assert [report.epoch for report in probe.reports] == [0, 1]
        for report in probe.reports:
            assert_report(report, expected, N)
            assert report.source == "train"


def test_a_probe_with_data_measures_at_the_end_of_each_epoch():
    model, weights, data = network(1)
    probe = ReluProbe(data=data, strict=True)
    model.fit(np.zeros((8, 6)), np.zeros((8, 1)), epochs=2, verbose=0, callbacks=[probe])
    for report in probe.reports:
        assert_report(report, by_hand(weights, data), N)
        assert report.source == "data"


@pytest.mark.once
@pytest.mark.parametrize("mistake", ["dL/da for dL/dz", "a dropped last batch", "counting >= 0", "only the last batch"])
def test_the_comparison_rejects(mistake):
    model, weights, data = network(0)
    report = measure(model, data)
    expected = by_hand(weights, data)
    assert_report(report, expected, N)
    if mistake == "dL/da for dL/dz":
        expected["a"]["with_gradient"] = np.where(expected["a"]["active"] < N, N, expected["a"]["with_gradient"])
    elif mistake == "counting >= 0":
        expected["a"]["active"] = np.full(5, N)
    else:
        part = slice(0, 32) if mistake == "a dropped last batch" else slice(32, None)
        expected = by_hand(weights, (data[0][part], data[1][part]))
    for layer in expected.values():
        layer["positions"] = N  # so that only the counts differ
    with pytest.raises(AssertionError):
        assert_report(report, expected, N)


def test_the_gradient_is_counted_at_the_pre_activation():
    """A dead neuron receives a gradient at its output on all 64 samples, but at its pre-activation on none."""
    hidden = L.Dense(2, "relu", name="a", bias_initializer=K.initializers.Constant(-100.0))
    model = sequential(3, hidden, L.Dense(1))
    x, y = np.random.default_rng(0).random((64, 3), np.float32), np.ones((64, 1), np.float32)
    with tf.GradientTape() as tape:
        output = model.layers[0](x)
        tape.watch(output)
        loss = tf.reduce_mean((model.layers[1](output) - y) ** 2)
    assert np.count_nonzero(tape.gradient(loss, output), axis=0).tolist() == [64, 64]
    assert measure(model, (x, y))["a"].with_gradient.tolist() == [0, 0]


def test_nan_neurons_are_marked_and_not_dead():
    model, weights, (x, y) = network(0)
    x = x.copy()
    x[3, 0] = np.nan
    report = measure(model, (x, y))
    assert report["a"].nan.all()
    assert not report["a"].dead.any()
    clean = by_hand(weights, (np.delete(x, 3, 0), np.delete(y, 3, 0)))
    np.testing.assert_array_equal(report["a"].active, clean["a"]["active"])


def test_a_bounded_relu_is_blocked_at_its_ceiling():
    model = sequential(1, L.Dense(3, use_bias=True, name="z"), L.ReLU(6.0, name="six"), L.Dense(1))
    model.set_weights([np.ones((1, 3), "f"), np.array([100.0, 0, -100], "f"), np.ones((3, 1), "f"), np.zeros(1, "f")])
    report = measure(model, (np.array([[1.0], [2.0]], "f"), np.array([[0.5], [0.5]], "f")))
    assert report["six"].active.tolist() == [2, 2, 0]
    assert report["six"].with_gradient.tolist() == [0, 2, 0]
    assert report["six"].blocked.tolist() == [True, False, False]


def test_x_alone_gives_activations_only():
    model, weights, (x, y) = network(2)
    for data in (x, (x,)):
        report = measure(model, data)
        np.testing.assert_array_equal(report["a"].active, by_hand(weights, (x, y))["a"]["active"])
        assert report["a"].with_gradient is None
        assert np.isnan(report.zero_gradient_fraction)


def test_activation_sums_equal_the_sums_of_numpy():
    model, weights, (x, _) = network(3)
    sums = np.maximum(x @ weights[0] + weights[1], 0).astype(float).sum(axis=0)
    np.testing.assert_allclose(measure(model, x)["a"].activation_sum, sums, rtol=1e-6)
    for requested in (True, False):
        probe = ReluProbe(activation_sum=requested, strict=True)
        model.fit(x, np.zeros((N, 1)), batch_size=10, verbose=0, callbacks=[probe])
        found = probe.report["a"].activation_sum
        assert (found is not None) == requested
        if requested:
            np.testing.assert_allclose(found, sums, rtol=1e-6)


def test_neurons_of_a_diverged_training_are_not_dead():
    """oneDNN's fused layer turns NaN into 0, so a naive count would find every neuron dead."""
    model, _, (x, y) = network(0)
    model.compile(K.optimizers.SGD(0.1), "mse")
    probe = ReluProbe(strict=True)
    model.fit(np.where(x == 3, np.nan, x), y, epochs=2, verbose=0, callbacks=[probe])
    assert np.isnan(model.get_weights()[0]).any()
    assert probe.report["a"].nan.all()
    assert not probe.report["a"].dead.any()


@pytest.mark.parametrize("layer", [L.ReLU, lambda: L.Activation("relu"), lambda: L.ReLU(max_value=2.0)])
def test_nan_before_an_activation_layer_is_reported(layer):
    """The layer has no weights in which a NaN would show. In a bounded layer, the ReLU is not the last operation."""
    x, y = np.full((8, 2), np.nan, "f"), np.zeros((8, 1))
    model = sequential(2, L.Dense(3), layer(), L.Dense(1), optimizer=K.optimizers.SGD(0.1))
    probe = ReluProbe(strict=True)
    (measured,) = measure(model, (x, y)).layers.values()
    model.fit(x, y, epochs=2, verbose=0, callbacks=[probe])
    for found in (measured, *probe.report.layers.values()):
        assert found.nan.all()
        assert not found.dead.any()


def test_a_nan_in_the_weights_is_reported_for_the_right_neuron():
    """In the kernel of a transposed convolution, the last axis is the input channels."""
    layer = L.Conv2DTranspose(2, 2, activation="relu", name="up")
    model = K.Sequential([K.Input((3, 3, 2)), layer])
    kernel, bias = np.ones((2, 2, 2, 2), "f"), np.zeros(2, "f")
    kernel[..., 0, 1] = np.nan
    layer.set_weights([kernel, bias])
    assert measure(model, np.ones((4, 3, 3, 2), "f"))["up"].nan.tolist() == [True, False]
