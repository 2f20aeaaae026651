"""`revive`: what it does for each cause, what it leaves, and that it changes nothing else."""

import re

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import diagnose, measure, revive, shrink

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).standard_normal((200, 3)).astype("float32")
Y = X.sum(1, keepdims=True)


def set_neuron(layer, neuron, kernel=None, bias=None):
    values = layer.get_weights()
    if kernel is not None:
        values[0][..., neuron] = kernel
    if bias is not None:
        values[1][neuron] = bias
    layer.set_weights(values)


def net(*hidden, inputs=3, **options):
    return sequential(inputs, *(hidden or (L.Dense(4, "relu", name="hidden"),)), L.Dense(1, name="out"), **options)


def predictions(model, x=X):
    return np.asarray(model(tf.constant(x), training=False))


def rates(model, x=X, name="hidden"):
    return measure(model, x)[name].activation_rate


# --- method "cause" ---------------------------------------------------------------------------------------------------


def test_a_bias_is_raised_until_the_neuron_fires_on_the_wanted_share():
    for fire in (0.1, 0.5, 0.9, 1.0):
        model = net()
        set_neuron(model.layers[0], 1, bias=-40)
        kernel = model.layers[0].get_weights()[0]
        before = predictions(model)
        layer = revive(model, X, fire=fire).layers["hidden"]
        assert (layer.neurons.tolist(), layer.cause.tolist(), layer.action.tolist()) == ([1], ["bias"], ["bias raised"])
        assert rates(model)[1] == pytest.approx(fire)
        assert np.array_equal(before, predictions(model))
        assert np.array_equal(kernel, model.layers[0].get_weights()[0])
        assert model.layers[-1].get_weights()[0][1] == 0


def test_the_bias_lies_halfway_between_two_values():
    model = net(L.Dense(1, "relu", name="hidden"), inputs=1)
    model.layers[0].set_weights([np.ones((1, 1)), np.array([-1000.0])])
    x = np.arange(100, dtype=np.float32)[:, None]
    revive(model, x, fire=0.25)
    assert model.layers[0].get_weights()[1] == [-74.5]  # 75, ..., 99 fire


def test_weights_that_no_sample_makes_positive_are_drawn():
    model = net()
    for neuron in range(4):
        set_neuron(model.layers[0], neuron, kernel=[-0.5, -1, -0.25] if neuron == 2 else [1, 0, 0])
    x = np.abs(X)
    assert diagnose(model, x).layers["hidden"].cause[2] == "weights"
    kernel = model.layers[0].get_weights()[0]
    layer = revive(model, x, fire=0.3, seed=0).layers["hidden"]
    assert (layer.cause.tolist(), layer.action.tolist()) == (["weights"], ["weights drawn"])
    changed = np.any(model.layers[0].get_weights()[0] != kernel, axis=0)
    assert changed.tolist() == [False, False, True, False]
    assert rates(model, x)[2] == pytest.approx(0.3)


def test_weights_are_flipped_where_the_initialiser_makes_zeros():
    model = net(L.Dense(1, "relu", kernel_initializer="zeros", name="hidden"))
    set_neuron(model.layers[0], 0, kernel=[-5, -10, -2.5])
    x = np.abs(X)
    assert revive(model, x).layers["hidden"].action.tolist() == ["sign flipped"]
    assert model.layers[0].get_weights()[0][:, 0].tolist() == [5, 10, 2.5]
    assert rates(model, x)[0] == 0.5


def test_zero_weights_are_drawn_by_the_layers_initialiser_and_the_seed():
    def drawn(seed):
        model = net(L.Dense(4, "relu", kernel_initializer="he_uniform", name="hidden"))
        set_neuron(model.layers[0], 0, kernel=0, bias=-1)
        layer = revive(model, X, seed=seed).layers["hidden"]
        assert (layer.cause.tolist(), layer.action.tolist()) == (["zero weights"], ["weights drawn"])
        assert rates(model)[0] == 0.5
        return model.layers[0].get_weights()[0][:, 0].tolist()

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(None) != drawn(None)
    assert 0 < np.abs(drawn(1)).max() <= np.sqrt(6 / 3)


def test_weights_that_have_grown_out_of_scale_are_drawn():
    """With a raised bias alone, what such a neuron emits would make the next steps diverge."""
    model = net()
    set_neuron(model.layers[0], 1, kernel=[40, -50, 60], bias=-1000)
    set_neuron(model.layers[0], 2, kernel=[1, -1, 1], bias=-100)
    assert revive(model, X, seed=0).layers["hidden"].action.tolist() == ["weights drawn", "bias raised"]
    assert np.abs(model.layers[0].get_weights()[0]).max() < 2
    assert rates(model)[1:3].tolist() == [0.5, 0.5]


def test_a_neuron_with_the_same_input_everywhere_becomes_positive():
    model = net()
    set_neuron(model.layers[0], 0, kernel=[1, 0, 0], bias=-30)
    x = X.copy()
    x[:, 0] = 2
    revive(model, x)
    assert rates(model, x)[0] == 1
    assert model.layers[0].get_weights()[1][0] == pytest.approx(-1.9)


def test_batch_normalization_before_the_relu_gets_the_statistics_of_the_data():
    model = net(L.Dense(4), L.BatchNormalization(name="norm"), L.ReLU(name="hidden"))
    norm = model.get_layer("norm")
    gamma, beta, mean, variance = norm.get_weights()
    gamma[1], beta[:3], mean[2] = 0, [-90, -1, 0], 1000  # the bias, gamma, and the moving mean hold a neuron down
    norm.set_weights([gamma, beta, mean, variance])
    assert measure(model, X)["hidden"].dead.tolist() == [True] * 3 + [False]
    before, linear = predictions(model), model.layers[0].get_weights()
    revive(model, X, fire=0.3)
    assert rates(model)[:3] == pytest.approx([0.3] * 3)
    assert np.array_equal(before, predictions(model))
    z = X @ linear[0] + linear[1]
    assert norm.get_weights()[2][:3] == pytest.approx(z.mean(axis=0)[:3], abs=1e-5)
    assert norm.get_weights()[3][:3] == pytest.approx(z.var(axis=0)[:3], rel=1e-4)
    assert norm.get_weights()[0].tolist() == [1] * 4
    assert [a.tolist() for a in linear] == [a.tolist() for a in model.layers[0].get_weights()]


def test_batch_normalization_behind_the_relu_emits_what_it_emitted():
    model = net(L.Dense(4, "relu", name="hidden"), L.BatchNormalization(name="norm"))
    set_neuron(model.layers[0], 1, bias=-40)
    norm = model.get_layer("norm")
    norm.set_weights(np.array([[1, 2, 3, 4], [0.1, 0.7, 0.3, 0.4], [0.5, 0.3, 0.2, 0.1], [1, 3, 2, 1]], "float32"))
    before, out = predictions(model), model.layers[-1].get_weights()[0]
    revive(model, X)
    assert np.array_equal(before, predictions(model))
    assert rates(model)[1] == 0.5
    assert norm.get_weights()[0].tolist() == [1, 0, 3, 4]
    assert norm.get_weights()[1][1] == pytest.approx(0.7 - 0.3 * 2 / np.sqrt(3.001))
    assert np.array_equal(out, model.layers[-1].get_weights()[0])


def test_layers_without_a_bias():
    model = net(L.Dense(4, "relu", use_bias=False, name="hidden"))
    kernel = model.layers[0].get_weights()[0]
    kernel[:] = np.array([[-0.5, -1, -0.25], [0, 0, 0], [1, 1, 1], [1, 1, 1]]).T
    model.layers[0].set_weights([kernel])
    x = np.abs(X)
    layer = revive(model, x, seed=0).layers["hidden"]
    assert layer.action.tolist() == ["sign flipped", "weights drawn"]
    assert not measure(model, x)["hidden"].dead.any()


def test_a_neuron_that_cannot_fire_keeps_its_weights():
    model = net(L.Dense(4, use_bias=False), L.ReLU(threshold=100.0, name="hidden"), optimizer="adam")
    model.fit(X, Y, verbose=0)
    weights, slots = model.get_weights(), [np.asarray(v) for v in model.optimizer.variables]
    left = revive(model, X).layers["hidden"].left
    assert {why: len(neurons) for why, neurons in left.items()} == {
        "it has no bias, and its weights cannot make it fire": 4
    }
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights()))
    assert all(np.array_equal(a, b) for a, b in zip(slots, model.optimizer.variables))


def test_a_relu_with_a_threshold():
    model = net(L.Dense(4), L.ReLU(threshold=100.0, name="hidden"))
    revive(model, X, fire=0.2)
    assert rates(model) == pytest.approx([0.2] * 4)


def test_constraints_hold_afterwards():
    options = {"kernel_constraint": "non_neg", "bias_constraint": K.constraints.MaxNorm(3.0)}
    model = net(L.Dense(4, "relu", name="hidden", **options))
    set_neuron(model.layers[0], 0, kernel=[1, 1, 1], bias=-50)
    set_neuron(model.layers[0], 1, kernel=[0, 0, 0], bias=-1)
    revive(model, X, seed=0)
    kernel, bias = model.layers[0].get_weights()
    assert (kernel[:, 1] >= 0).all()
    assert np.linalg.norm(bias) <= 3.001


# --- chains -----------------------------------------------------------------------------------------------------------


def chain(depth=4):
    """Layers of three neurons; the first is held down by its bias, so that nothing reaches the others, all dead."""
    layers = [L.Dense(3, "relu", name=f"h{i}", kernel_initializer="glorot_uniform") for i in range(depth)]
    model = net(*layers, optimizer=K.optimizers.SGD(0.1))
    for i in range(depth):
        for neuron in range(3):
            set_neuron(model.layers[i], neuron, bias=-30 if i == 0 else -0.1)
    return model


def test_causes_are_those_before_a_layer_in_front_was_revived():
    model = net(*(L.Dense(3, "relu", name=name) for name in ("h1", "h2")))
    model.layers[0].bias.assign([-40.0, 1.0, 1.0])
    set_neuron(model.layers[1], 2, kernel=[3.0, -0.1, -0.1])  # dead, until the first neuron before it fires
    causes = {name: layer.cause for name, layer in diagnose(model, (X, Y)).layers.items()}
    assert causes["h2"][2] == "weights"
    for method in ("cause", "redo"):
        revival = revive(model, (X, Y), method=method, seed=0)
        for name, layer in revival.layers.items():
            assert layer.cause.tolist() == causes[name][layer.neurons].tolist()
        if method == "cause":
            assert revival.layers["h2"].action.tolist() == ["woke with its input"]
        revival.undo()


def test_a_chain_of_dead_layers_wakes_at_once():
    model = chain()
    assert all(layer.dead.all() for layer in measure(model, X).layers.values())
    before = predictions(model)
    revival = revive(model, (X, Y), seed=0)
    assert revival.revived == 12
    assert np.array_equal(before, predictions(model))
    assert not any(layer.dead.any() for layer in revival.after.layers.values())
    assert {cause for name in ("h1", "h2", "h3") for cause in revival.layers[name].cause} >= {"input"}
    blocked = []
    for _ in range(4):
        blocked.append([layer.blocked.sum() for layer in measure(model, (X, Y)).layers.values()])
        model.fit(X, Y, batch_size=200, verbose=0)
    assert blocked[0] == [3, 3, 3, 3]  # the last layer's outgoing weights are zero: nothing learns but those
    assert sum(blocked[1]) == 0


def test_a_single_layer_is_dead_then_blocked_then_alive_within_a_step():
    model = net(optimizer=K.optimizers.SGD(0.01))
    set_neuron(model.layers[0], 1, bias=-40)
    assert measure(model, (X, Y))["hidden"].dead[1]
    revive(model, (X, Y))
    assert measure(model, (X, Y))["hidden"].blocked[1]
    model.fit(X, Y, batch_size=200, verbose=0)
    assert not measure(model, (X, Y))["hidden"].zero_gradient[1]


def test_a_follower_keeps_the_weights_from_a_revived_neuron_and_others_lose_them():
    model = net(L.Dense(2, "relu", name="first"), L.Dense(2, "relu", name="second"))
    set_neuron(model.layers[0], 0, bias=-40)
    model.layers[1].set_weights([np.ones((2, 2)), np.array([-40, 5])])
    revive(model, X)
    assert model.layers[1].get_weights()[0].tolist() == [[1, 0], [1, 1]]
    assert model.layers[2].get_weights()[0][0] == 0


# --- method "redo" ----------------------------------------------------------------------------------------------------


def test_redo_draws_the_weights_and_sets_the_bias_to_zero():
    model = net()
    set_neuron(model.layers[0], 1, bias=-40)
    before, kernel = predictions(model), model.layers[0].get_weights()[0]
    assert revive(model, X, method="redo", seed=3).layers["hidden"].action.tolist() == ["weights drawn"]
    found, bias = model.layers[0].get_weights()
    assert bias[1] == 0
    assert (found[:, 1] != kernel[:, 1]).all()
    assert np.array_equal(found[:, [0, 2, 3]], kernel[:, [0, 2, 3]])
    assert np.array_equal(before, predictions(model))


# --- what is left, by name --------------------------------------------------------------------------------------------


def functional(make):
    x = K.Input((3,))
    return K.Model(x, make(x))


def dead(units=3, name="hidden", **options):
    return L.Dense(units, "relu", bias_initializer=K.initializers.Constant(-50.0), name=name, **options)


def residual(x):
    h = L.Dense(3)(x)
    return L.Dense(1)(L.Add(name="sum")([h, dead()(h)]))


def tied(x):
    embed = dead()
    return L.Dense(1)(embed(embed(x)))


LEFT = {
    "it is part of an output of the model: see what diagnose advises": lambda x: L.Identity()(dead()(x)),
    "its output goes to sum (Add), in which its weights are not told apart": residual,
    "next is frozen": lambda x: L.Dense(1, name="next", trainable=False)(dead()(x)),
    "hidden is frozen": lambda x: L.Dense(1)(dead(trainable=False)(x)),
    "its output goes to norm (LayerNormalization), in which its weights are not told apart": lambda x: L.Dense(1)(
        L.LayerNormalization(name="norm")(dead()(x))
    ),
    "its output goes to soft (Softmax), in which its weights are not told apart": lambda x: L.Dense(1)(
        L.Softmax(name="soft")(dead()(x))
    ),
    "norm, the BatchNormalization behind it, has no gamma or no beta": lambda x: L.Dense(1)(
        L.BatchNormalization(scale=False, name="norm")(dead()(x))
    ),
    "hidden is also called on something else": tied,
    "2 BatchNormalization layers stand before it": lambda x: L.Dense(1)(
        L.ReLU(name="hidden", threshold=100.0)(L.BatchNormalization()(L.BatchNormalization()(L.Dense(3)(x))))
    ),
    "its input is not the output of one linear layer alone": lambda x: L.Dense(1)(
        L.ReLU(name="hidden", threshold=100.0)(L.Add()([L.Dense(3)(x), L.Dense(3)(x)]))
    ),
    "nothing but zeros reaches it": lambda x: L.Dense(1)(dead()(L.Rescaling(0.0)(x))),
}


@pytest.mark.parametrize("reason", LEFT)
def test_what_cannot_be_revived_is_left_by_name(reason):
    model = functional(LEFT[reason])
    weights, before = model.get_weights(), predictions(model)
    revival = revive(model, X)
    assert revival.revived == 0
    assert [(why, len(neurons)) for why, neurons in revival.layers["hidden"].left.items()] == [(reason, 3)]
    assert f"hidden: 3 left: {reason}." in " ".join(str(revival).split())
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights()))
    assert np.array_equal(before, predictions(model))


def test_a_linear_layer_that_feeds_more_than_the_relu_is_left():
    def make(x):
        h = L.Dense(3, name="both", bias_initializer=K.initializers.Constant(-50.0))(x)
        return L.Concatenate()([L.Dense(1)(L.ReLU(name="hidden")(h)), h])

    left = revive(functional(make), X).layers["hidden"].left
    assert list(left) == ["the output of both goes elsewhere too, before the ReLU"]


def test_batch_normalization_on_neurons_of_several_axes_is_left_by_name():
    def make(x):
        bias = {"bias_axes": "no", "bias_initializer": K.initializers.Constant(-50.0), "activation": "relu"}
        h = L.EinsumDense("bni,nio->bno", (2, 3), name="hidden", **bias)(L.RepeatVector(2)(x))
        return L.Dense(1)(L.Flatten()(L.BatchNormalization(name="norm")(h)))

    left = revive(functional(make), X).layers["hidden"].left
    assert list(left) == ["its output goes to norm (BatchNormalization), in which its weights are not told apart"]


def test_blocked_neurons_are_left_by_name():
    model = net()
    out = model.layers[-1].get_weights()
    model.layers[-1].set_weights([out[0] * [[0], [1], [1], [1]], out[1]])
    revival = revive(model, (X, Y))
    assert [neurons.tolist() for neurons in revival.layers["hidden"].left.values()] == [[0]]
    assert "blocked, not dead" in str(revival)


def test_only_the_chosen_layers_are_touched():
    model = net(dead(3, "a"), L.Dense(3, "relu", name="b", bias_initializer=K.initializers.Constant(-50.0)))
    revival = revive(model, X, layers="b")
    assert list(revival.layers) == ["b"]
    assert list(revival.layers["b"].left) == ["nothing but zeros reaches it"]
    assert revive(model, X, layers="a").revived == 3
    assert revive(model, X).revived == 3


# --- structures that the zoo lacks ------------------------------------------------------------------------------------


def image_net(padding, data_format="channels_last"):
    first = data_format == "channels_first"
    options = {"activation": "relu", "padding": padding, "data_format": data_format}
    shape = (2, 6, 5) if first else (6, 5, 2)
    layers = [L.Conv2D(4, 3, name="conv", **options), L.MaxPooling2D(2, padding="same", data_format=data_format)]
    layers += [L.Flatten(data_format=data_format), L.Dense(3, "relu", name="behind")]
    return sequential(shape, *layers, L.Dense(1))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_convolution_pooling_flatten_dense(padding, data_format):
    model = image_net(padding, data_format)
    set_neuron(model.layers[0], 2, bias=-40)
    x = np.random.default_rng(0).standard_normal((150, *model.input_shape[1:])).astype("float32")
    before = predictions(model, x)
    revival = revive(model, x, fire=0.4, layers="conv")
    assert np.array_equal(before, predictions(model, x))
    assert rates(model, x, "conv")[2] == pytest.approx(0.4, abs=1e-3)
    rows = np.flatnonzero(~model.layers[3].get_weights()[0].any(axis=1))
    assert rows.tolist() == list(range(2, 4 * len(rows), 4))  # c + C * k
    assert revival.revived == 1


EINSUMS = {
    "stacked nets": ("bni,nio->bno", (2, 3), "no", "bni,nio->bno", (2, 1)),
    "heads": ("bni,ihd->bnhd", (2, 2, 3), "hd", "bnhd,hde->bne", (2, 4)),
    "an axis in the middle": ("bni,io->bon", (3, 2), None, "bon,oe->bne", (2, 1)),
    "stacked nets without a bias": ("bni,nio->bno", (2, 3), None, "bni,nio->bno", (2, 1)),
}


@pytest.mark.parametrize("name", EINSUMS)
def test_neurons_on_several_axes(name):
    first, shape, bias_axes, second, out = EINSUMS[name]
    hidden = L.EinsumDense(first, shape, activation="relu", bias_axes=bias_axes, name="hidden")
    model = sequential((2, 3), hidden, L.EinsumDense(second, out), L.Flatten(), L.Dense(1), optimizer="adam")
    x = np.random.default_rng(0).uniform(0, 1, (200, 2, 3)).astype("float32")
    hidden.kernel.assign(np.abs(hidden.kernel) + 0.1)
    dead = (..., 1) if name == "heads" or bias_axes is None else 1
    weight = hidden.kernel if bias_axes is None else hidden.bias
    value = np.array(tf.convert_to_tensor(weight))
    value[dead] = -40 if bias_axes else -value[dead]
    weight.assign(value)
    before, killed = predictions(model, x), measure(model, x)["hidden"].dead
    assert 0 < killed.sum() < killed.size
    revival = revive(model, x, fire=0.3, seed=0)
    assert np.array_equal(revival.layers["hidden"].neurons, np.flatnonzero(killed))
    assert np.array_equal(before, predictions(model, x))
    assert rates(model, x)[killed] == pytest.approx(0.3 if bias_axes else 1.0, abs=0.01)


def test_mixed_precision():
    K.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = net(L.Dense(4, "relu", name="hidden"), optimizer="adam")
    finally:
        K.mixed_precision.set_global_policy("float32")
    model.fit(X, Y, verbose=0)
    set_neuron(model.layers[0], 1, bias=-40)
    before = predictions(model)
    revival = revive(model, (X, Y))
    assert np.array_equal(before, predictions(model))
    assert revival.revived == 1
    assert rates(model)[1] == pytest.approx(0.5, abs=0.02)


def test_inputs_as_a_dataset():
    model = net()
    set_neuron(model.layers[0], 1, bias=-40)
    assert revive(model, tf.data.Dataset.from_tensor_slices((X, Y)).batch(50)).revived == 1


# --- the result -------------------------------------------------------------------------------------------------------


def test_the_table():
    model = net()
    set_neuron(model.layers[0], 1, bias=-40)
    text = str(revive(model, X, validation=X[:10] * 100))
    assert text.splitlines()[0] == "Revival: 1 neuron revived on 200 samples; no prediction on them changed"
    assert re.search(r"hidden +4 +1 +1 +0 +bias raised 1", text)
    assert re.search(r"Largest change of a prediction on the validation data: \d", text)


def test_the_change_on_validation_data_is_the_largest():
    model = net()
    set_neuron(model.layers[0], 1, bias=-4)
    far = X * 20
    before = predictions(model, far)
    revival = revive(model, X, validation=far, min_rate=0.2)
    change = np.abs(predictions(model, far) - before).max()
    assert revival.validation_change == pytest.approx(change) != 0


def test_undo_raises_if_something_changed_since():
    model = net(optimizer="adam")
    model.fit(X, Y, verbose=0)
    set_neuron(model.layers[0], 1, bias=-40)
    weights = model.get_weights()
    revival = revive(model, (X, Y))
    model.layers[0].bias.assign(model.layers[0].bias + 1)
    trained = model.get_weights()
    with pytest.raises(
        ValueError, match=r"bias.* has changed since the revival; expected what the revival wrote\. Undo"
    ):
        revival.undo()
    assert all(np.array_equal(a, b) for a, b in zip(trained, model.get_weights()))
    model.layers[0].bias.assign(model.layers[0].bias - 1)
    assert not all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights()))


def test_a_revival_cannot_be_changed():
    model = net()
    set_neuron(model.layers[0], 1, bias=-40)
    revival = revive(model, X)
    with pytest.raises(AttributeError):
        revival.before = None
    with pytest.raises(TypeError):
        revival.layers["hidden"] = None
    with pytest.raises(ValueError, match="read-only"):
        revival.layers["hidden"].neurons[0] = 3


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "reset"}, 'method is \'reset\'; expected "cause" or "redo".'),
        ({"fire": 0}, "fire is 0; expected a share between 0 and 1, such as 0.5."),
        ({"fire": 1.5}, "fire is 1.5; expected a share between 0 and 1, such as 0.5."),
        ({"min_rate": 1}, "min_rate is 1; expected a share between 0 and 1, such as 0.5."),
        ({"confidence": 2}, "confidence is 2; expected a number between 0 and 1, such as 0.95."),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        revive(net(), X, **options)


@pytest.mark.parametrize(("neurons", "needed"), [(24, 121), (1000, 194)])
def test_too_few_samples(neurons, needed):
    model = net(L.Dense(neurons, "relu", name="hidden"))
    revive(model, X[:needed])
    message = f"data has {needed - 1} samples; expected at least {needed}: on fewer, one of {neurons:,} neurons"
    with pytest.raises(ValueError, match=message):
        revive(model, X[: needed - 1])


# --- ReLUs in code ----------------------------------------------------------------------------------------------------


class Block(L.Layer):
    """A ReLU that is written as a function; the first of its two neurons is dead."""

    def __init__(self, name="block", **options):
        super().__init__(name=name, **options)
        self.dense = L.Dense(2, bias_initializer=K.initializers.Constant([-99.0, 0.0]))

    def call(self, x):
        return tf.nn.relu(self.dense(x))


@pytest.mark.parametrize("layers", [[], [L.Dense(4, "relu", name="hidden")]], ids=["alone", "with a layer"])
@pytest.mark.parametrize("change", [revive, shrink])
def test_a_dead_neuron_of_a_function_is_left_by_name(change, layers):
    left = change(net(Block(), *(type(layer).from_config(layer.get_config()) for layer in layers)), X)
    found = left.layers["block/relu"].left if change is revive else left.left["block/relu"]
    assert {why.split(",")[0]: list(neurons) for why, neurons in found.items()} == {
        "the ReLU stands in the code of a layer or in a cell": [0]
    }
    assert "the ReLU stands in the code" in " ".join(str(left).split())
