"""Layers so wide that the quarters of a batch are counted one after the other, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from relu_probe import ReluProbe
from relu_probe.counting import call_counts
from relu_probe.counting.counter_block import CounterBlock
from relu_probe.counting.kernels import VERY_WIDE
from relu_probe.measuring.train_step import training_counters

K, L = tf.keras, tf.keras.layers


def wide(neurons=VERY_WIDE):
    K.utils.set_random_seed(0)
    model = K.Sequential([K.Input((2,)), L.Dense(neurons, "relu"), L.Dense(1)])
    model.compile(K.optimizers.SGD(0.0), "mse")
    return model


def fit(model, batch_size):
    """Returns the layer's report of the second epoch, and the expected number of active positions."""
    x = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    active = model.layers[0](x).numpy() > 0
    probe = ReluProbe(strict=True)
    model.fit(x, np.ones((5, 1)), epochs=2, batch_size=batch_size, verbose=0, callbacks=[probe])
    (layer,) = probe.report.values()
    return layer, active.sum(0)


@pytest.mark.parametrize("neurons", [VERY_WIDE, VERY_WIDE + 3])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_quarters_of_a_batch(batch_size, neurons):
    layer, expected = fit(wide(neurons), batch_size)
    np.testing.assert_array_equal(layer.active, expected)
    np.testing.assert_array_equal(layer.with_gradient, expected)
    steps = -(-5 // batch_size)  # of an epoch
    assert (layer.last_active[expected == 0] == -1).all()
    assert (layer.last_active[expected == 5] == 2 * steps - 1).all()
    assert (layer.last_active[expected > 0] >= steps).all()
    assert not layer.nan.any()


def test_a_forgotten_sample_is_noticed(monkeypatch):
    quarters = call_counts._count_quarters
    monkeypatch.setattr(
        call_counts, "_count_quarters", lambda ceiling, *tensors: quarters(ceiling, *(each[1:] for each in tensors))
    )
    layer, expected = fit(wide(), 5)
    assert (layer.active != expected).any()


def test_a_nan_among_half_a_million_neurons():
    model = wide()
    kernel = model.layers[0].kernel
    kernel.assign(np.where(np.arange(VERY_WIDE) == 7, np.nan, kernel))
    layer, _ = fit(model, 5)
    assert np.flatnonzero(layer.nan)[0] == 7


def addresses(model):
    """Returns where the memory of each counter is."""
    variables = training_counters(model).variables()
    return [np.asarray(memoryview(variable.value())).ctypes.data for variable in variables]


def moved(model):
    """Returns how many counters the steps of a fit move to other memory."""
    places = []

    class Places(K.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            places.append(addresses(model))

    x, y = np.ones((6, 2)), np.ones((6, 1))
    model.fit(x, y, batch_size=2, verbose=0, callbacks=[ReluProbe(strict=True, activation_sum=True), Places()])
    return sum(len(set(each)) > 1 for each in zip(*places))


def test_a_step_adds_to_the_counters_where_they_are():
    assert moved(wide(2**16)) == 0


def test_a_counter_that_gets_new_memory_is_noticed(monkeypatch):
    def date(block, counts, step):
        fired = counts[: block._ends[-1]] > 0
        block._last_active.assign(tf.where(fired, step, block._last_active))

    monkeypatch.setattr(CounterBlock, "_date", date)
    assert moved(wide(2**16)) > 0


def test_the_masks_of_the_forward_pass_wait_for_the_gradients():
    function = tf.function(
        lambda output, gradient: call_counts._count_quarters(None, output, gradient),
        input_signature=[tf.TensorSpec((None, VERY_WIDE))] * 2,
    )
    graph = function.get_concrete_function().graph
    first = next(op for op in graph.get_operations() if op.type == "Greater")
    assert graph.inputs[1].op in first.control_inputs
