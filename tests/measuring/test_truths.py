"""Results of probability theory on random layers, with the right standard errors over several seeds."""

from functools import cache

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import norm

from relu_probe import measure

K, L = tf.keras, tf.keras.layers
WIDTH, SEEDS = 4000, 8


@cache
def wide(inputs):
    """One model, traced once, for all seeds."""
    return K.Sequential([K.Input((inputs,)), L.Dense(WIDTH, "relu", name="wide")])


def layer_report(x, seed, bias=0.0, unit=False, distribution="normal"):
    """The report of a wide ReLU layer with i.i.d. symmetric weights; `unit` scales each neuron's weights to norm 1."""
    rng = np.random.default_rng(seed)
    weights = (
        rng.standard_normal((x.shape[1], WIDTH))
        if distribution == "normal"
        else rng.uniform(-1, 1, (x.shape[1], WIDTH))
    )
    if unit:
        weights /= np.linalg.norm(weights, axis=0)
    model = wide(x.shape[1])
    model.set_weights([weights.astype("f"), np.full(WIDTH, bias, "f")])
    return measure(model, x.astype("f"), batch_size=256)["wide"]


def dead_of(samples, **more):
    """The mean dead fraction over weight seeds, and its standard error. Given `samples`, neurons are independent."""
    found = [layer_report(samples, seed, **more).dead_fraction for seed in range(SEEDS)]
    return np.mean(found), np.std(found, ddof=1) / np.sqrt(SEEDS)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_on_mirrored_data_no_neuron_is_dead(distribution):
    x = np.random.default_rng(0).standard_normal((3, 5))
    assert dead_of(np.concatenate([x, -x]), distribution=distribution)[0] == 0


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_on_one_sample_half_of_the_neurons_are_dead(distribution):
    x = np.random.default_rng(1).standard_normal((1, 5))
    mean, error = dead_of(x, distribution=distribution)
    binomial = np.sqrt(0.25 / (WIDTH * SEEDS))
    assert abs(mean - 1 / 2) < 4 * binomial
    assert abs(error - binomial) < 4 * binomial  # the spread over seeds agrees with the binomial one
    assert abs(mean - 0.55) > 4 * binomial  # a planted mistake of 5 % would be seen


@pytest.mark.parametrize("n", [1, 3, 9])
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_with_a_common_direction_one_neuron_in_n_plus_one_is_dead(n, distribution):
    """For samples e0 + e_i, a neuron is dead if -w0 is the largest of N + 1 i.i.d. values (symmetric, continuous)."""
    x = np.concatenate([np.ones((n, 1)), np.eye(n)], axis=1)
    mean, _ = dead_of(x, distribution=distribution)
    binomial = np.sqrt((1 / (n + 1)) * (n / (n + 1)) / (WIDTH * SEEDS))
    assert abs(mean - 1 / (n + 1)) < 4 * binomial
    assert abs(mean - 1 / (n + 2)) > 4 * binomial  # the mistake: N is off by one


@pytest.mark.parametrize("c", [0.5, 1.0])
def test_a_negative_bias_makes_inactive_with_probability_phi_of_c(c):
    """x ~ N(0, I), |w| = 1, bias -c: inactive on a sample with Phi(c), dead on N of them with Phi(c)^N.

    The neurons share the samples and so correlate: standard errors over data seeds.
    """
    n, dim, inactive, dead = 4, 32, [], []
    for seed in range(24):
        x = np.random.default_rng(100 + seed).standard_normal((n, dim))
        report = layer_report(x, seed, bias=-c, unit=True)
        inactive.append(1 - report.activation_rate.mean())
        dead.append(report.dead_fraction)
    for values, truth in ((inactive, norm.cdf(c)), (dead, norm.cdf(c) ** n)):
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        assert abs(np.mean(values) - truth) < 4 * error
        assert error < 0.02
    assert abs(np.mean(dead) - norm.cdf(c) ** (n - 1)) > 4 * np.std(dead, ddof=1) / np.sqrt(len(dead))
