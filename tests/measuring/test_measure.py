"""`measure` restores all state of the model, and traces one step for each model."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe, measure, watch

K, L = tf.keras, tf.keras.layers
X, Y = np.random.default_rng(0).random((50, 4), np.float32), np.ones((50, 1), np.float32)


def net(**more):
    layers = [L.Dense(8, "relu", name="hidden"), L.Dropout(0.5), L.BatchNormalization(), L.Dense(1)]
    return sequential(4, *layers, optimizer="adam", metrics=["mae"], **more)


def state(model):
    metrics = [v for metric in model.metrics for v in metric.variables]
    return [tf.convert_to_tensor(v).numpy() for v in [*model.variables, *metrics, *model.optimizer.variables]]


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_weights_metrics_and_seeds_are_restored(options):
    model = net(**options)
    model.fit(X, Y, verbose=0)
    before = state(model)
    measure(model, (X, Y))
    after = state(model)
    assert len(before) == len(after)
    assert all(np.array_equal(a, b) for a, b in zip(before, after))


def test_metrics_of_several_outputs_are_restored():
    x = K.Input((4,))
    hidden = L.Dense(3, "relu")(x)
    model = K.Model(x, {"p": L.Dense(1, name="p")(hidden), "q": L.Dense(1, name="q")(hidden)})
    model.compile("sgd", {"p": "mse", "q": "mse"})
    model.fit(X, {"p": Y, "q": Y}, verbose=0)
    before = state(model)
    measure(model, (X, {"p": Y, "q": Y}))
    assert all(np.array_equal(a, b) for a, b in zip(before, state(model)))
    model.compile("sgd", {"p": "mse", "q": "mse"})
    measure(model, (X, {"p": Y, "q": Y}))  # before any fit: the measurement makes the metric trackers
    for metric in model.metrics:
        assert not any(np.any(tf.convert_to_tensor(v)) for v in metric.variables)


@pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (1, 1), (2, 1)])
def test_progress(capsys, verbose, lines):
    measure(net(), X, batch_size=10, verbose=verbose)
    out = capsys.readouterr().out
    assert ("5/5" in out) == bool(verbose)
    assert out.count("\n") == lines


class Counting(K.Sequential):
    traces = 0

    def call(self, *args, **kwargs):
        Counting.traces += 1
        return super().call(*args, **kwargs)


def traces_of(work):
    Counting.traces = 0
    work()
    return Counting.traces


def counting():
    model = sequential(4, L.Dense(8, "relu"), L.Dense(1), optimizer="sgd", kind=Counting)
    model(X[:2])
    return model


def test_one_trace_for_the_whole_fit():
    """50 samples in batches of 16: the last batch is smaller."""
    model = counting()
    plain = traces_of(lambda: model.fit(X, Y, epochs=1, batch_size=16, verbose=0))
    with_data = traces_of(
        lambda: model.fit(X, Y, epochs=4, batch_size=16, verbose=0, callbacks=[ReluProbe(data=(X, Y))])
    )
    assert with_data == 1
    counted = traces_of(lambda: model.fit(X, Y, epochs=4, batch_size=16, verbose=0, callbacks=[ReluProbe()]))
    assert counted == 1 <= plain  # tf_keras traces twice if the optimizer makes its variables
    again = traces_of(lambda: model.fit(X, Y, epochs=4, batch_size=16, verbose=0, callbacks=[ReluProbe()]))
    assert again == 0
    assert traces_of(lambda: [measure(model, (X, Y)) for _ in range(3)]) == 0


def test_another_loss_needs_another_trace():
    model = counting()
    assert traces_of(lambda: measure(model, (X, Y))) == 1
    model.compile("sgd", "mae")
    assert traces_of(lambda: measure(model, (X, Y))) == 1


def test_nothing_keeps_a_model_alive():
    model = net()
    model.fit(X, Y, verbose=0, callbacks=[ReluProbe()])
    measure(model, (X, Y))
    with watch(model):
        model(X)
    gone = weakref.ref(model)
    del model
    K.backend.clear_session()
    gc.collect()
    assert gone() is None


def test_max_samples_is_exact():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    for data in ((X, Y), dataset, dataset.repeat()):
        for limit in (1, 16, 37):
            assert measure(net(), data, max_samples=limit).samples == limit
    assert measure(net(), (X, Y), max_samples=1000).samples == 50


def test_a_model_compiled_with_an_optimizer_alone_has_no_gradients():
    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(3, "relu")])
    model.compile("sgd")
    assert not measure(model, (np.ones((4, 2)), np.ones((4, 3)))).has_gradients
