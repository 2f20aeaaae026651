"""Results of probability theory on dead neurons, measured over several seeds with their standard errors."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import norm

from relu_probe import diagnose, measure

L = tf.keras.layers
SIGMAS = 4


def agrees(shares, truth):
    """Whether the mean of independent fractions lies within four standard errors of the truth."""
    error = np.std(shares, ddof=1) / np.sqrt(len(shares))
    return abs(np.mean(shares) - truth) < SIGMAS * error


# --- born dead: many nets side by side, as the blocks of one wide model -----------------------------------------------

NETS = 400


def nets_side_by_side(width, depth):
    hidden = [L.Dense(NETS * width, "relu", name=f"hidden{i}") for i in range(depth)]
    return tf.keras.Sequential([tf.keras.Input((2,)), *hidden])


def initialise(model, width, rng):
    """Sets zero biases and symmetric weights, with no weight between two networks."""
    blocks = np.kron(np.eye(NETS), np.ones((width, width)))
    kernels = [rng.normal(size=w.shape) for w in model.get_weights()[::2]]
    kernels = [k if i == 0 else k * blocks for i, k in enumerate(kernels)]
    model.set_weights([v for k in kernels for v in (k, np.zeros(k.shape[1]))])


@pytest.mark.parametrize(("width", "depth"), [(1, 2), (2, 4), (3, 3)])
def test_the_last_layer_is_born_dead_as_often_as_predicted(width, depth):
    """On inputs along a ray, all neurons are dead with probability 1 - (1 - 2**-width) ** depth (Lu et al. 2019, arXiv:1903.06733)."""
    model, shares = nets_side_by_side(width, depth), []
    ray = np.linspace(0.5, 2, 5)[:, None] * [0.6, 0.8]
    for seed in range(8):
        initialise(model, width, np.random.default_rng(seed))
        dead = measure(model, ray)[f"hidden{depth - 1}"].dead
        shares.append(dead.reshape(NETS, width).all(axis=1).mean())
    assert agrees(shares, 1 - (1 - 2.0**-width) ** depth)
    assert not agrees(shares, 1 - (1 - 2.0**-width) ** (depth - 1))  # one layer too few
    assert not agrees(shares, 2.0 ** -(width * depth))


def test_behind_the_first_dead_layer_of_a_network_born_dead_the_cause_is_the_input():
    model = nets_side_by_side(1, 3)
    initialise(model, 1, np.random.default_rng(0))
    layers = diagnose(model, np.linspace(0.5, 2, 5)[:, None] * [0.6, 0.8]).layers
    for before, after in zip(list(layers)[:-1], list(layers)[1:]):
        assert set(layers[after].cause[layers[before].report.dead]) == {"input"}
        alive = layers[before].report.active > 0
        assert set(layers[after].cause[alive]) == {"weights", ""}


# --- BatchNormalization on Gaussian pre-activations -------------------------------------------------------------------


@pytest.mark.parametrize("variance", [0.5, 1.0])
def test_behind_batch_normalization_beta_and_gamma_give_the_inactive_fraction(variance):
    """A neuron is inactive with probability Phi(-beta / |gamma|), where gamma is scaled by sqrt(variance / (variance + epsilon))."""
    beta, gamma, epsilon = np.array([-2.0, -0.5, 0.0, 1.0]), np.array([1.0, -2.0, 0.5, -1.0]), 0.5
    layer = L.BatchNormalization(epsilon=epsilon)
    model = tf.keras.Sequential([tf.keras.Input((4,)), layer, L.ReLU(name="relu")])
    layer.set_weights([gamma, beta, np.full(4, 3.0), np.full(4, variance)])
    shares = []
    for seed in range(10):
        x = np.random.default_rng(seed).normal(3, np.sqrt(variance), (5000, 4))
        shares.append(1 - measure(model, x, batch_size=5000)["relu"].activation_rate)
    scale = np.abs(gamma) * np.sqrt(variance / (variance + epsilon))
    for neuron in range(4):
        assert agrees(np.array(shares)[:, neuron], norm.cdf(-beta[neuron] / scale[neuron]))
    assert not agrees(np.array(shares)[:, 1], norm.cdf(-beta[1] / np.abs(gamma[1])))  # epsilon forgotten
    assert not agrees(np.array(shares)[:, 0], norm.cdf(beta[0] / scale[0]))  # the wrong sign


# --- random biases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_random_biases_as_large_as_the_weights_kill_one_in_n_plus_1(samples):
    """b ~ N(0, s**2), |w| = s, x ~ N(0, I): of N + 1 exchangeable numbers -b is the largest with probability 1/(N + 1).

    The neurons of a layer share the samples, and so are not independent: the standard error is that over the seeds.
    """
    model, shares = tf.keras.Sequential([tf.keras.Input((20,)), L.Dense(300, "relu", name="hidden")]), []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        w = rng.normal(size=(20, 300))
        model.set_weights([2 * w / np.linalg.norm(w, axis=0), 2 * rng.normal(size=300)])
        shares.append(measure(model, rng.normal(size=(samples, 20)))["hidden"].dead_fraction)
    assert agrees(shares, 1 / (samples + 1))
    assert not agrees(shares, 0.5**samples if samples > 1 else 0.25)  # a bias of zero
    assert not agrees(shares, 1 / (samples + 2))
