"""Training with the probe is bit-identical to training without it."""

import harm
import numpy as np
import pytest
import tensorflow as tf
import zoo
from harm import KERAS3, K, L
from keras_version import KERAS
from zoo import train_zoo

from relu_probe import ReluProbe
from relu_probe.counting.probe import Probe


@pytest.mark.parametrize("name", list(zoo.rows()))
def test_zoo(name):
    harm.assert_no_harm(lambda callbacks: train_zoo(name, callbacks), [ReluProbe(strict=True)])


def large(rates=(0.3, 0.5), **compile_args):
    """A model large enough for fused, blocked and parallel kernels, with Dropout and BatchNormalization."""
    K.utils.set_random_seed(1)
    block = [L.Conv2D(16, 3), L.BatchNormalization(), L.ReLU(), L.Dropout(rates[0]), L.Conv2D(24, 3, activation="relu")]
    head = [L.GlobalAveragePooling2D(), L.Dense(64, "relu"), L.Dropout(rates[1]), L.Dense(3, dtype="float32")]
    model = K.Sequential([K.Input((16, 16, 3)), *block, *head])
    loss = K.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        compile_args.pop("optimizer", None) or K.optimizers.Adam(0.01), loss, metrics=["accuracy"], **compile_args
    )
    if K.mixed_precision.global_policy().name == "float32":
        model.optimizer.build(model.trainable_variables)  # as in train_zoo
    return model


def train_large(callbacks, policy="float32", compile_args=None, rates=(0.3, 0.5), **fit_args):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((70, 16, 16, 3)).astype("float32"), rng.integers(0, 3, 70)
    K.mixed_precision.set_global_policy(policy)
    try:
        return harm.fitted(
            large(rates, **(compile_args() if compile_args else {})), callbacks, x, y, batch_size=32, **fit_args
        )
    finally:
        K.mixed_precision.set_global_policy("float32")


def held_out():
    rng = np.random.default_rng(1)
    return rng.standard_normal((20, 16, 16, 3)).astype("float32"), rng.integers(0, 3, 20)


@pytest.mark.parametrize(
    ("policy", "jit"),
    [
        ("float32", False),
        ("mixed_float16", False),
        ("mixed_bfloat16", False),
        ("float32", True),
        ("mixed_float16", True),
    ],
)
def test_dropout_batch_normalization_and_mixed_precision(policy, jit):
    rates = (0.3, 0.5) if KERAS3 or not jit else (0, 0)  # XLA's random numbers have no seed: all trainings differ
    args = {"policy": policy, "compile_args": lambda: {"jit_compile": jit}, "rates": rates}
    harm.assert_no_harm(lambda c: train_large(c, **args), [ReluProbe(strict=True)])


IN_TWO_TRACES = {} if KERAS3 else {"rates": (0, 0)}  # see the test below: Dropout draws other numbers in each trace


@pytest.mark.parametrize(
    ("probes", "fit_args"),
    [
        (lambda: [ReluProbe(data=held_out(), strict=True)], {}),
        (lambda: [ReluProbe(data=held_out(), freq=2, strict=True), ReluProbe(name="b", strict=True)], {"epochs": 3}),
        (lambda: [ReluProbe(activation_sum=True, freq=2, strict=True)], {"epochs": 3, **IN_TWO_TRACES}),
        (lambda: [ReluProbe(strict=True)], {"validation_data": held_out(), "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}),
    ],
    ids=["data", "two probes", "sums, every other epoch", "validation and class weights"],
)
def test_ways_to_measure(probes, fit_args):
    """A measurement during the fit restores seed states, metrics and moving averages."""
    harm.assert_no_harm(lambda c: train_large(c, **fit_args), probes())


class Retraces(K.callbacks.Callback):
    """Has the train function traced again for the second epoch; this is no probe."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.make_train_function(force=True)


@pytest.mark.skipif(KERAS3, reason="Keras 3 keeps the state of Dropout in a variable, which all traces share")
def test_dropout_of_tf_keras_draws_other_numbers_in_each_trace_even_without_a_probe():
    """Known behaviour: its random state is part of the traced function. So freq > 1 changes the masks of Dropout there."""
    with pytest.raises(AssertionError, match="the callback changed the training"):
        harm.assert_no_harm(train_large, [Retraces()])
    harm.assert_no_harm(lambda c: train_large(c, rates=(0, 0)), [Retraces()])


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"steps_per_execution": 2}])
def test_ways_to_run(options):
    x, y = harm.data(24 if KERAS > (3, 3) else 32)  # Keras 3.3 warns if the last execution has one step only
    harm.assert_no_harm(lambda c: harm.fitted(harm.net(**options), c, x, y), [ReluProbe(strict=True)])


@pytest.mark.skipif(not KERAS3, reason="tf_keras' optimizers do not accumulate gradients")
def test_an_optimizer_that_accumulates_averages_and_clips():
    def optimizer():
        return {"optimizer": K.optimizers.Adam(0.01, gradient_accumulation_steps=2, use_ema=True, clipnorm=1.0)}

    harm.assert_no_harm(lambda c: train_large(c, compile_args=optimizer), [ReluProbe(strict=True)])


class Moves(K.callbacks.Callback):
    """The planted mistake: a forward pass in training mode changes the seed state of Dropout."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model(held_out()[0], training=True)


@pytest.mark.once
def test_the_comparison_rejects_a_harmful_callback():
    with pytest.raises(AssertionError, match="the callback changed the training"):
        harm.assert_no_harm(train_large, [Moves()])


@pytest.mark.once
def test_the_comparison_rejects_what_it_cannot_compare():
    """If two trainings without any callback differ, the comparison says nothing about the callback."""
    seeds = iter(range(100))

    def train(callbacks):
        model = harm.net()
        model.layers[0].bias.assign(np.full(6, next(seeds), np.float32))
        return harm.fitted(model, callbacks)

    with pytest.raises(AssertionError, match="trainings without the callback differ: nothing was compared"):
        harm.assert_no_harm(train, [ReluProbe()])


@pytest.mark.once
def test_the_comparison_rejects_a_probe_that_is_not_the_identity(monkeypatch):
    counted = Probe.__call__
    monkeypatch.setattr(Probe, "__call__", lambda self, output: counted(self, output) * np.float32(1 + 2**-20))
    with pytest.raises(AssertionError, match="the callback changed the training"):
        harm.assert_no_harm(lambda c: harm.fitted(harm.net(), c), [ReluProbe()])


@pytest.mark.filterwarnings("ignore:Even though the:UserWarning:tensorflow")
def test_functions_run_eagerly():
    tf.config.run_functions_eagerly(True)
    try:
        harm.assert_no_harm(lambda c: harm.fitted(harm.net(), c), [ReluProbe(strict=True)])
    finally:
        tf.config.run_functions_eagerly(False)
