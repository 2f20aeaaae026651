"""TensorFlow's debugging tools stop at any NaN or infinity: the probe makes none where the model has none."""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe, diagnose, measure
from relu_probe.counting import counters

K, L = tf.keras, tf.keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((8, 8, 8, 1)).astype("f")
HUGE = RNG.standard_normal((8, 3)).astype("f") * np.float32(1e20)
Y = np.ones((8, 1), "f")


def convolutional():
    pooled = [L.MaxPool2D(), L.BatchNormalization(), L.ReLU(6.0), L.Flatten()]
    return sequential((8, 8, 1), L.Conv2D(8, 3, activation="relu"), *pooled, L.Dense(1, kernel_initializer="zeros"))


def wide():
    return sequential(3, L.Dense(2048, "relu"), L.Dense(1, kernel_initializer="zeros"))


@contextmanager
def numerics_checked():
    tf.debugging.enable_check_numerics()
    try:
        yield
    finally:
        tf.debugging.disable_check_numerics()


@pytest.mark.parametrize(("model", "x"), [(convolutional, IMAGES), (wide, HUGE)])
def test_check_numerics_finds_nothing_of_the_probe(model, x):
    with numerics_checked():
        for probe in (ReluProbe(strict=True, activation_sum=True), ReluProbe(strict=True, data=(x, Y))):
            model().fit(x, Y, verbose=0, callbacks=[probe])
            assert probe.report.samples == 8
        assert measure(model(), (x, Y)).samples == 8
        assert diagnose(model(), (x, Y)).report.samples == 8


class NoSamples(K.Model):
    """Twelve layers of an expert to which no sample is sent."""

    def __init__(self):
        super().__init__()
        self.expert = [L.Dense(4, "relu") for _ in range(12)]
        self.last = L.Dense(1)

    def call(self, x):
        h = x[:0]
        for layer in self.expert:
            h = layer(h)
        return self.last(tf.reshape(x, (-1, 64))) + tf.reduce_sum(h)


def test_check_numerics_finds_nothing_in_layers_without_samples(monkeypatch):
    """The largest value of no values is -inf; `is_debugged` keeps the probe from it. The planted mistake does not know of debuggers."""
    for known in (True, False):
        if not known:
            monkeypatch.setattr(counters, "is_debugged", lambda: False)
        model = NoSamples()
        model.compile("sgd", "mse")
        with numerics_checked(), nullcontext() if known else pytest.raises(tf.errors.InvalidArgumentError):
            model.fit(IMAGES, Y, verbose=0, callbacks=[ReluProbe()])


def test_check_numerics_finds_an_infinity_of_the_model():
    """The planted mistake: a sum of squares overflows."""
    model = sequential(3, L.Dense(8, "relu"), L.Lambda(tf.square), L.Dense(1))
    with numerics_checked(), pytest.raises(tf.errors.InvalidArgumentError, match="Infinity or NaN"):
        model.fit(HUGE, Y, verbose=0)


def test_dumped_debug_info(tmp_path):
    tf.debugging.experimental.enable_dump_debug_info(str(tmp_path), tensor_debug_mode="FULL_HEALTH")
    try:
        probe = ReluProbe(strict=True)
        convolutional().fit(IMAGES, Y, verbose=0, callbacks=[probe])
        assert probe.report.samples == 8
    finally:
        tf.debugging.experimental.disable_dump_debug_info()
