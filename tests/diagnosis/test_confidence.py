"""Confidence limits of rates, and proofs over a box of inputs."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from relu_probe import diagnose, measure
from relu_probe.diagnosis.confidence import joint_rate_limit, rate_limit
from relu_probe.diagnosis.interval_arithmetic import Arithmetic, Box, read_box, through_affine

L = tf.keras.layers


# --- statistics -------------------------------------------------------------------------------------------------------


def test_limits_of_neurons_that_never_fired():
    limits = [float(rate_limit([0], n)[0]) for n in (100, 1000, 10000)]
    assert limits == pytest.approx([0.029513, 0.00299125, 0.000299528], rel=1e-5)
    assert limits == pytest.approx([1 - 0.05 ** (1 / n) for n in (100, 1000, 10000)], rel=1e-12)
    assert limits != pytest.approx([3 / n for n in (100, 1000, 10000)], rel=1e-3)  # not the approximate rule of three


@pytest.mark.parametrize("fired", [0, 1, 7, 49])
def test_the_limit_is_the_rate_at_which_so_few_samples_are_just_too_unlikely(fired):
    limit = float(rate_limit([fired], 50, 0.9)[0])
    assert binom.cdf(fired, 50, limit) == pytest.approx(0.1, rel=1e-9)
    assert binom.cdf(fired, 50, limit * 0.99) > 0.1001  # a smaller limit would claim too much


def test_a_neuron_that_always_fired_has_no_limit():
    assert rate_limit([50, 0], 50).tolist()[0] == 1
    assert rate_limit([0], 0).tolist() == [1]


def test_joint_limits_divide_the_error_probability_by_the_neurons():
    assert joint_rate_limit(np.zeros(64, int), 1000)[0] == pytest.approx(1 - (0.05 / 64) ** (1 / 1000), rel=1e-12)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.2])
def test_the_limit_covers_the_true_rate_at_the_confidence_level(rate):
    """The exact coverage, summed over all outcomes, is at least the confidence level."""
    counts = np.arange(201)
    covered = [binom.pmf(counts, 200, rate)[rate_limit(counts, 200, c) >= rate].sum() for c in (0.95, 0.5)]
    assert covered[0] >= 0.95
    assert covered[1] >= 0.5
    assert binom.pmf(counts, 200, rate)[counts / 200 >= rate].sum() < 0.95  # the observed rate itself does not cover


def test_limits_of_a_diagnosis():
    model = tf.keras.Sequential([tf.keras.Input((1,)), L.Dense(2, "relu", name="hidden")])
    model.set_weights([np.ones((1, 2)), np.array([-100, -5])])
    found = diagnose(model, np.arange(10.0)[:, None], confidence=0.9)  # 4 of 10 samples are above 5
    assert found.layers["hidden"].rate_limit == pytest.approx([1 - 0.1**0.1, rate_limit([4], 10, 0.9)[0]])
    assert found.layers["hidden"].joint_rate_limit == pytest.approx([1 - 0.05**0.1, rate_limit([4], 10, 0.95)[0]])


@pytest.mark.parametrize("confidence", [0, 1, 95, True, "high", float("nan")])
def test_a_confidence_outside_0_and_1_is_refused(confidence):
    model = tf.keras.Sequential([tf.keras.Input((1,)), L.Dense(2, "relu")])
    with pytest.raises(ValueError, match="confidence") as error:
        diagnose(model, np.ones((2, 1)), confidence=confidence)
    assert str(error.value) == f"confidence is {confidence!r}; expected a number between 0 and 1, such as 0.95."


# --- proofs -----------------------------------------------------------------------------------------------------------


def mlp(widths):
    """Dense layers with ReLUs as their activation and as layers of their own, with Flatten and Dropout between them."""
    layers = [tf.keras.Input((widths[0],)), L.Flatten()]
    for i, n in enumerate(widths[1:]):
        own = [L.Dense(n), L.Dropout(0.5), L.ReLU(name=f"hidden{i}")]
        layers += own if i % 2 else [L.Dense(n, "relu", name=f"hidden{i}")]
    return tf.keras.Sequential(layers)


def with_weights(model, seed, bias=0.0, scale=1.0):
    """Random weights; a negative `bias` is the mean of the biases, so that many neurons are dead."""
    rng = np.random.default_rng(seed)
    shapes = [w.shape for w in model.get_weights()]
    model.set_weights([rng.normal(bias * (len(s) == 1), scale, s).astype(np.float32) for s in shapes])
    return model


@pytest.fixture(scope="module")
def deep():
    return mlp([3, 8, 6, 5])


def samples_in(low, high, shape, rng):
    """Corners of the box and points inside it."""
    corners = rng.integers(0, 2, (200, *shape))
    inner = rng.random((200, *shape))
    return (low + (high - low) * np.concatenate([corners, inner])).astype(np.float32)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    low=st.floats(-2, 2, width=32),
    size=st.floats(0, 3, width=32),
    bias=st.floats(-3, 0, width=32),
    scale=st.sampled_from([1e-20, 0.1, 1.0, 100.0]),
)
def test_a_certified_neuron_is_dead_on_every_data_set_in_the_box(deep, *, seed, low, size, bias, scale):
    model, high = with_weights(deep, seed, bias * scale, scale), np.float32(low + size)
    found = diagnose(model, np.full((1, 3), low, np.float32), bounds=(low, high))
    report = measure(model, samples_in(low, high, (3,), np.random.default_rng(seed)), batch_size=512)
    for name, layer in found.layers.items():
        assert not np.any(layer.certified & ~report[name].dead), name
        assert layer.bounds_stopped_at == ""


def test_the_property_test_can_fail(deep):
    """Bounds that are too small certify a neuron that fires in the larger box."""
    model = with_weights(deep, 1, -1.0)
    found = diagnose(model, np.zeros((1, 3)), bounds=(-0.1, 0.1))
    report = measure(model, samples_in(-2, 2, (3,), np.random.default_rng(0)), batch_size=512)
    assert any(np.any(layer.certified & ~report[name].dead) for name, layer in found.layers.items())


def test_the_first_layer_is_exact():
    """A neuron is certified if and only if no corner of the box makes it fire (all by more than rounding)."""
    model = with_weights(mlp([6, 400]), 0, -3.0)
    found = diagnose(model, np.zeros((1, 6)), bounds=(-1, 1)).layers["hidden0"]
    corners = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T
    highest = (corners @ model.get_weights()[0].astype(float) + model.get_weights()[1]).max(axis=0)
    assert np.abs(highest).min() > 1e-4
    assert found.certified.tolist() == (highest < 0).tolist()
    assert 50 < found.certified.sum() < 350


def test_a_neuron_that_is_dead_only_on_the_data_is_not_certified():
    """The neuron is dead on the data, and fires elsewhere in the larger box."""
    model = mlp([2, 1])
    model.set_weights([np.array([[1.0], [1.0]]), np.array([-1.0])])
    data = np.zeros((100, 2))
    assert diagnose(model, data, bounds=(0, 1)).layers["hidden0"].certified.tolist() == [False]
    assert diagnose(model, data, bounds=(0, [0.4, 0.4])).layers["hidden0"].certified.tolist() == [True]
    found = diagnose(model, data, bounds=(np.zeros(2), np.array([0.4, 1.0]))).layers["hidden0"]
    assert (found.report.dead.tolist(), found.certified.tolist()) == ([True], [False])
    assert diagnose(model, data).layers["hidden0"].certified is None


def test_the_models_own_rounding_is_counted():
    """w.x + b is exactly -2**-30, but in float32 it is 0 or more for some order of the sum: not certified."""
    kernel = np.array([[1.0], [2.0**-24], [2.0**-24], [-1.0], [-(2.0**-23)]])
    box, ones = Box(np.ones(5), np.ones(5)), np.ones((5, 1))
    assert through_affine(box, kernel, np.array([-(2.0**-30)]), Arithmetic.of(np.float32)).high[0] > 0
    exact = Arithmetic(unit=0.0, tiny=0.0, largest=1e300)
    assert through_affine(box, kernel, np.array([-(2.0**-30)]), exact).high[0] < 0  # so it is the rounding that matters
    assert through_affine(box, ones, np.array([-6.0]), Arithmetic.of(np.float32)).high[0] < 0


@pytest.mark.parametrize("seed", range(20))
def test_no_order_of_summation_in_float32_leaves_the_bounds(seed):
    """Sums with cancelling terms of sizes from 2**-30 to 2**30, added in random orders in float32, stay in the bounds."""
    rng = np.random.default_rng(seed)
    kernel = (rng.normal(size=(300, 4)) * 2.0 ** rng.integers(-30, 30, (300, 4))).astype(np.float32)
    x, bias = rng.normal(size=300).astype(np.float32), rng.normal(size=4).astype(np.float32)
    box = through_affine(Box(x.astype(float), x.astype(float)), kernel, bias, Arithmetic.of(np.float32))
    outside_exact = 0
    exact = (x.astype(np.longdouble) @ kernel.astype(np.longdouble)) + bias
    for _ in range(20):
        terms = np.concatenate([x[:, None] * kernel, bias[None]])[rng.permutation(301)]
        total = np.add.accumulate(terms, dtype=np.float32)[-1]
        assert np.all((box.low <= total) & (total <= box.high))
        outside_exact += int(np.any(total > exact))
    assert outside_exact  # some sums do differ from the exact ones


def test_an_overflow_is_not_certified():
    """z is far below zero, but a partial sum may overflow to infinity, and infinity minus infinity is NaN."""
    kernel = np.full((2, 1), -3e38)
    assert through_affine(Box(np.ones(2), np.ones(2)), kernel, None, Arithmetic.of(np.float32)) is None
    assert through_affine(Box(np.ones(2), np.ones(2)), kernel / 10, None, Arithmetic.of(np.float32)).high[0] < 0
    assert through_affine(Box(np.ones(2), np.ones(2)), kernel * np.nan, None, Arithmetic.of(np.float32)) is None


def test_bounds_stop_at_an_unknown_layer():
    x = tf.keras.Input((4,))
    first = L.Dense(
        4, "relu", name="first", kernel_initializer="ones", bias_initializer=tf.keras.initializers.Constant(-9.0)
    )
    y = L.Dense(2, "relu", name="second", kernel_initializer="ones")(L.LayerNormalization(name="norm")(first(x)))
    found = diagnose(tf.keras.Model(x, y), np.ones((3, 4)), bounds=(0, 1))
    assert found.layers["first"].certified.all()
    assert not found.layers["second"].certified.any()
    assert [layer.bounds_stopped_at for layer in found.layers.values()] == ["", "norm"]


def test_the_text_says_where_the_bounds_stopped():
    x, low = tf.keras.Input((4,)), tf.keras.initializers.Constant(-99.0)
    y = L.Dense(2, "relu", name="second", bias_initializer=low)(L.LayerNormalization(name="norm")(x))
    found = diagnose(tf.keras.Model(x, y), np.arange(12.0).reshape(3, 4), bounds=(0, 11))
    assert "the bounds could not be carried through norm" in " ".join(str(found).split())


@pytest.mark.parametrize(
    "activation", [lambda z: 1.0 * tf.nn.relu(z), lambda z: tf.where(z == -7.0, 1.0, tf.nn.relu(z))]
)
def test_an_activation_known_only_on_some_points_certifies_nothing(activation):
    model = tf.keras.Sequential([tf.keras.Input((1,)), L.Dense(1, activation, name="hidden")])
    model.set_weights([np.ones((1, 1)), np.array([-8.0])])
    found = diagnose(model, np.zeros((3, 1)), bounds=(0, 1)).layers["hidden"]
    assert (found.report.dead.tolist(), found.certified.tolist()) == ([True], [False])


def test_half_precision_certifies_nothing():
    model = tf.keras.Sequential([tf.keras.Input((1,)), L.Dense(1, "relu", dtype="mixed_float16", name="hidden")])
    model.set_weights([np.ones((1, 1)), np.array([-8.0])])
    assert not diagnose(model, np.zeros((3, 1), np.float32), bounds=(0, 1)).layers["hidden"].certified.any()


def test_bounds_are_carried_through_bounded_and_shifted_relus():
    x = tf.keras.Input((1,))
    six = L.ReLU(6.0, name="six")(L.Dense(1, kernel_initializer="ones", name="linear")(x))  # at most 6
    hidden = L.Dense(2, "relu", name="hidden")
    y = hidden(six)
    hidden.set_weights([np.ones((1, 2)), np.array([-6.1, -5.9])])
    model = tf.keras.Model(x, L.ReLU(threshold=0.2, name="shifted")(L.Dense(1, kernel_initializer="ones")(y)))
    found = diagnose(model, np.zeros((3, 1)), bounds=(0, 100))
    assert found.layers["hidden"].certified.tolist() == [True, False]
    assert found.layers["shifted"].certified.tolist() == [True]  # at most 0.1


BAD = {
    "low > high": ((1, 0), "bounds has low > high (1 above at most); expected (low, high). Swap them."),
    "infinite": (
        (-np.inf, 1),
        "the low of bounds is not finite; expected the smallest and largest value that an input can take.",
    ),
    "nan": (
        (0, np.nan),
        "the high of bounds is not finite; expected the smallest and largest value that an input can take.",
    ),
    "shape": (
        (0, [1, 2, 3]),
        "the high of bounds has shape (3,); expected a number, or an array of the input's shape (2,).",
    ),
    "no pair": (5, "bounds is 5; expected (low, high), two numbers or two arrays of the input's shape (2,)."),
    "three": (
        (0, 1, 2),
        "bounds is (0, 1, 2); expected (low, high), two numbers or two arrays of the input's shape (2,).",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bounds_are_refused(name):
    bounds, words = BAD[name]
    with pytest.raises(ValueError, match="bounds") as error:
        diagnose(mlp([2, 1]), np.zeros((3, 2)), bounds=bounds)
    assert str(error.value) == words
    with pytest.raises(ValueError, match="bounds"):
        read_box(bounds, (2,))
