"""Models with side effects, and models that change between two measurements: counted correctly, and left unchanged."""

import harm
import numpy as np
import pytest
import tensorflow as tf
from keras_version import KERAS, LEGACY
from models import sequential

from relu_probe import ReluProbe, measure, watch
from relu_probe.structure import relu_function
from relu_probe.structure.pure_function import as_pure_function

K, L = tf.keras, tf.keras.layers
X, Y = harm.data()


def net(*layers):
    return sequential(4, *layers, L.Dense(6, "relu", name="hidden"), L.Dense(1), optimizer=K.optimizers.Adam(0.01))


def counting_lambda():
    calls = tf.Variable(0.0)
    model = net(L.Lambda(lambda t: t + 0.1 * calls.assign_add(1.0)))
    return model, calls


class CountsItsCalls(L.Layer):
    def build(self, shape):
        self.calls = self.add_weight(name="calls", shape=(), initializer="zeros", trainable=False)

    def call(self, t):
        self.calls.assign(self.calls + 1.0)
        return t * (1 + 0.01 * tf.convert_to_tensor(self.calls))


def test_a_function_with_effects_is_never_called_to_find_out_whether_it_is_a_relu():
    def trained(callbacks):
        K.utils.set_random_seed(1)
        model, calls = counting_lambda()
        return {**harm.fitted(model, callbacks, X, Y), "calls": [calls.numpy()]}

    harm.assert_no_harm(trained, [ReluProbe(strict=True)])


@pytest.mark.skipif(LEGACY, reason="tf_keras has no SeedGenerator")
def test_a_noisy_relu_draws_the_same_numbers_as_without_the_probe():
    def trained(callbacks):
        K.utils.set_random_seed(1)
        seeds = K.random.SeedGenerator(3)
        noisy = L.Dense(6, lambda t: K.ops.relu(t) + 0.01 * K.random.normal(K.ops.shape(t), seed=seeds))
        model = net(noisy)
        model.seeds = seeds
        return harm.fitted(model, callbacks, X, Y)

    harm.assert_no_harm(trained, [ReluProbe(strict=True)])


@pytest.mark.once
def test_the_comparison_rejects_a_function_that_is_called(monkeypatch):
    def called(function):
        if isinstance(function, L.Lambda):
            function.function(tf.constant([[1.0]]))
        return as_pure_function(function)

    monkeypatch.setattr(relu_function, "as_pure_function", called)
    with pytest.raises(AssertionError, match="changed the training"):
        test_a_function_with_effects_is_never_called_to_find_out_whether_it_is_a_relu()


def test_state_that_a_layer_moves_in_inference_is_put_back():
    def trained(callbacks):
        K.utils.set_random_seed(1)
        return harm.fitted(net(CountsItsCalls()), callbacks, X, Y)

    harm.assert_no_harm(trained, [ReluProbe(data=(X, Y), strict=True)])


def test_the_state_of_an_rnn_is_put_back():
    x = np.ones((8, 3, 4), "float32")
    inputs = {"batch_input_shape": (8, 3, 4)} if LEGACY else {}
    layers = [L.SimpleRNN(5, stateful=True, **inputs), L.Dense(6, "relu", name="hidden"), L.Dense(1)]
    model = K.Sequential(layers if LEGACY else [K.Input(batch_shape=(8, 3, 4)), *layers])
    model.predict(x, batch_size=8, verbose=0)
    before = [np.array(tf.convert_to_tensor(state)) for state in model.layers[0].states]
    measure(model, x, batch_size=8)
    assert all(np.any(state) for state in before)
    for state, as_found in zip(model.layers[0].states, before):
        np.testing.assert_array_equal(tf.convert_to_tensor(state), as_found)


def truth(model):
    return (np.asarray(model.get_layer("hidden")(X)) > 0).sum(0)


@pytest.mark.skipif(KERAS == (3, 3), reason="Keras 3.3 treats a loss weight of zero as no weight")
def test_a_recompiled_model_is_measured_with_its_new_loss():
    model = net()
    assert measure(model, (X, Y))["hidden"].with_gradient.any()
    model.compile(model.optimizer, "mse", loss_weights=0.0)
    assert not measure(model, (X, Y))["hidden"].with_gradient.any()


@pytest.mark.skipif(KERAS < (3, 5), reason="this Keras has neither enable_lora nor quantize")
@pytest.mark.parametrize("before", [False, True])
def test_adapted_and_quantized_layers_are_counted_as_they_are(before):
    model = net()
    if before:
        measure(model, X)
    hidden = model.get_layer("hidden")
    hidden.enable_lora(2)
    hidden.lora_kernel_b.assign(np.full((2, 6), 3.0))
    np.testing.assert_array_equal(measure(model, X)["hidden"].active, truth(model))
    hidden.quantize("int8")
    np.testing.assert_array_equal(measure(model, X)["hidden"].active, truth(model))


class OneReluForTwo(K.Model):
    """One ReLU layer for layers of different widths, as is common in other frameworks."""

    def __init__(self):
        super().__init__()
        self.relu, self.a, self.b = L.ReLU(name="act"), L.Dense(8), L.Dense(16)
        self.last, self.out = L.Dense(3, "relu", name="last"), L.Dense(1)

    def call(self, t):
        return self.out(self.last(self.relu(self.b(self.relu(self.a(t))))))


def test_a_layer_that_cannot_be_counted_is_left_out_alone_and_named():
    model = OneReluForTwo()
    model.compile("sgd", "mse")
    probe = ReluProbe()
    model.fit(X, Y, verbose=0, callbacks=[probe])
    with watch(model) as w:
        model(X)
    for report in (probe.report, w.report(), measure(model, (X, Y))):
        assert report.unseen["act"] == "called with 8 and with 16 neurons, expected one ReLU layer for each"
        assert list(report.layers) == ["last"]
        assert report["last"].positions == len(X)
    model.fit(X, Y, verbose=0, callbacks=[ReluProbe(strict=True)])
    with pytest.raises(ValueError, match=r"not counted: act \(called with 8 and with 16 neurons"):
        model.fit(X, Y, verbose=0, callbacks=[ReluProbe(strict=True, layers="act")])
    assert harm.clean(model)


@pytest.mark.parametrize(
    ("trained", "text"),
    [(False, r"use `with watch\(model\) as w`"), (True, "no ReLU layer was called in 1 training steps")],
)
def test_hooks_that_are_called_by_hand_leave_nothing_and_say_what_to_do(trained, text):
    """After a training the model has a train function, for which the hook attaches a probe; but no step is run."""
    model, probe = net(), ReluProbe()
    if trained:
        model.fit(X, Y, verbose=0)
    hooks = K.callbacks.CallbackList([probe], model=model, add_history=False)
    hooks.on_train_begin()
    hooks.on_epoch_begin(0)
    hooks.on_train_batch_begin(0)
    hooks.on_train_batch_end(0, {"loss": 1.0})
    with pytest.warns(UserWarning, match=text):
        hooks.on_epoch_end(0, {})
    hooks.on_train_end()
    assert harm.clean(model)
    model.fit(X, Y, verbose=0)
    assert harm.clean(model)


def test_a_second_watch_of_one_model_is_refused():
    model = net()
    with watch(model) as w:
        model(X)
        with pytest.raises(RuntimeError, match="is already watched"), watch(model):
            pass
    assert w.report().samples == len(X)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_jacobian_is_no_backward_pass_of_a_loss(run_eagerly):
    model = net()

    def jacobian(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x)
        return tape.batch_jacobian(y, x)

    with watch(model) as w:
        (jacobian if run_eagerly else tf.function(jacobian))(tf.constant(X))
    assert w.report()["hidden"].positions == len(X)


def test_channels_first_ends_where_the_axes_are_moved():
    if LEGACY:
        pytest.skip("the operations of tf_keras do not show their axes")
    x = K.Input((2, 6, 6))
    hidden = L.Conv2D(5, 3, data_format="channels_first")(x)
    model = K.Model(x, L.ReLU(name="act")(K.ops.transpose(hidden, (0, 2, 3, 1))))
    from relu_probe.structure.relu_layers import find_relus

    assert find_relus(model)[0].axis == -1


@pytest.mark.parametrize(
    "value", [np.int64(2), np.float32(2), True, 0], ids=["a NumPy integer", "a float", "a bool", "zero"]
)
def test_whole_numbers_may_be_numpys(value):
    right = isinstance(value, np.integer)
    for name in ("freq", "keep"):
        if right:
            ReluProbe(**{name: value})
        else:
            with pytest.raises(ValueError, match=f"{name} is .*; expected a whole number"):
                ReluProbe(**{name: value})


def test_a_log_directory_has_no_null_character():
    with pytest.raises(ValueError, match="no null character"):
        ReluProbe("logs/a\0b")


def test_empty_batches_before_the_limit_are_passed_over():
    sizes = tf.data.Dataset.from_tensor_slices([0, 8, 0, 8])
    batches = sizes.map(lambda n: tf.ensure_shape(tf.ones((n, 4)), (None, 4)))
    assert measure(net(), batches, max_samples=12).samples == 12
    assert measure(net(), X, batch_size=2**63, max_samples=2**70).samples == len(X)


@pytest.mark.parametrize("switch", ["strict", "images", "text", "activation_sum", "at_start"])
def test_a_switch_is_true_or_false(switch):
    with pytest.raises(ValueError, match=f"{switch} is 'no'; expected True or False"):
        ReluProbe(data=(X, Y), **{switch: "no"})
