"""Every kind of advice has a planted case, and no advice appears without its trigger."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import History, ReluProbe, diagnose, revive
from relu_probe.diagnosis import triggers
from relu_probe.diagnosis.advice import KINDS

K, L = tf.keras, tf.keras.layers
X, Y = np.array([[1, 2], [3, 4]], np.float32), np.full((2, 1), 0.5, np.float32)
TRIGGERS = triggers._TRIGGERS
CENTRED = np.array([[1, -1], [-1, 1], [2, -2], [-2, 2]], np.float32)
POSITIVE = K.initializers.RandomUniform(0.1, 0.5, seed=0)  # no neuron is born dead on positive inputs
TARGETS = np.ones((4, 1), np.float32)


def net(*layers, inputs=2, **options):
    return sequential(inputs, *layers, **options)


def set_weights(layer, kernel, bias):
    layer.set_weights(
        [np.broadcast_to(np.asarray(v, np.float32), w.shape) for v, w in zip((kernel, bias), layer.weights)]
    )


def constant(value):
    return K.initializers.Constant(value)


def dead_output():
    model = net(L.Dense(4, "relu", kernel_initializer="ones"), L.Dense(1, "relu", kernel_initializer=constant(-1.0)))
    return diagnose(model, (X, -Y)), {"dead_output", "cut"}


def zero_kernel():
    model = net(L.Dense(4, "relu", kernel_initializer="zeros", name="h"), L.Dense(1))
    return diagnose(model, (X, Y)), {"zero_kernel", "cut"}


def zero_input():
    model = net(L.Dense(4, "relu"), L.Dense(1))
    return diagnose(model, (X * 0, Y)), {"zero_input", "cut"}


def bias_start():
    model = net(L.Dense(2, "relu", kernel_initializer="ones", bias_initializer=constant(-99.0)), L.Dense(1))
    return diagnose(model, (X, Y)), {"bias_start", "cut"}


def beta_start():
    norm = L.BatchNormalization(beta_initializer=constant(-99.0))
    return diagnose(net(L.Dense(2, kernel_initializer="ones"), norm, L.ReLU(), L.Dense(1)), (X, Y)), {
        "bias_start",
        "cut",
    }


def threshold():
    model = net(L.Dense(2, kernel_initializer="ones"), L.ReLU(threshold=50.0), L.Dense(1))
    return diagnose(model, (X, Y)), {"threshold", "cut"}


def trained_down():
    """The initialiser says that the bias began at zero."""
    model = net(L.Dense(2, "relu", kernel_initializer="ones"), L.Dense(1))
    set_weights(model.layers[0], [[1, 1], [0, 0]], -99)
    return diagnose(model, (CENTRED, TARGETS)), {"trained_down", "cut"}


def targets():
    """Large, though their mean is zero."""
    model = net(L.Dense(2, "relu", kernel_initializer="ones"), L.Dense(1))
    set_weights(model.layers[0], [[1, 1], [0, 0]], -99)
    return diagnose(model, (CENTRED, np.array([[300], [-300], [300], [-300]]))), {"targets", "trained_down", "cut"}


def inputs():
    model = net(L.Dense(2, "relu", kernel_initializer=constant(-1.0)), L.Dense(1))
    return diagnose(model, (X, Y)), {"inputs", "cut"}


def negative_inputs():
    model = net(L.Dense(2, "relu", kernel_initializer="ones"), L.Dense(1))
    return diagnose(model, (-X, Y)), {"inputs", "cut"}


def narrow():
    model = net(L.Dense(2, name="linear"), L.Dense(2, "relu"), L.Dense(1))
    set_weights(model.layers[0], 1, 0)
    set_weights(model.layers[1], -1, 0)
    probe = ReluProbe(data=(X, Y), at_start=True)
    model.fit(X, Y, verbose=0, callbacks=[probe])
    return diagnose(model, (X, Y), probe=probe), {"narrow", "cut"}


def second_cause():
    hidden = [L.Dense(2, "relu", kernel_initializer="ones", bias_initializer=constant(b)) for b in (-99.0, -5.0)]
    return diagnose(net(*hidden, L.Dense(1)), (X, Y)), {"bias_start", "cut", "second_cause"}


def no_path():
    x = K.Input((2,))
    y = L.Dense(2, "relu", kernel_initializer="ones")(x)
    model = K.Model(x, L.Dense(1)(L.Lambda(tf.stop_gradient)(y)))
    model.compile("sgd", "mse")
    return diagnose(model, (X, Y)), {"no_path"}


def loss():
    model = net(L.Dense(1, "relu", kernel_initializer="ones"), L.Dense(1, kernel_initializer="ones"))
    model.compile("sgd", lambda y, p: 0.0 * tf.reduce_sum(p, -1))
    return diagnose(model, (X, Y)), {"loss"}


def saturated():
    ones = {"kernel_initializer": "ones"}
    return diagnose(net(L.Dense(2, **ones), L.ReLU(1.0), L.Dense(1, **ones)), (X, Y)), {"saturated"}


def outgoing():
    model = net(L.Dense(2, "relu", kernel_initializer="ones"), L.Dense(1, kernel_initializer="zeros"))
    return diagnose(model, (X, Y)), {"outgoing"}


def nan_data():
    return diagnose(net(L.Dense(2, "relu"), L.Dense(1)), (X * np.nan, Y)), {"nan_data"}


def nan_weights():
    model = net(L.Dense(2, "relu"), L.Dense(1))
    set_weights(model.layers[0], np.nan, 0)
    return diagnose(model, (X, Y)), {"nan_weights"}


def nan_arithmetic():
    model = net(L.Dense(2, kernel_initializer="zeros"), L.Rescaling(np.inf), L.ReLU(), L.Dense(1))
    return diagnose(model, (X, Y)), {"nan_arithmetic"}


def inner_inputs():
    """What arrives at a layer behind the first one is off centre."""
    model = net(L.Dense(2), L.Dense(2, "relu"), L.Dense(1))
    set_weights(model.layers[0], 1, 0)
    set_weights(model.layers[1], -1, 0)
    return diagnose(model, (X, Y)), {"inputs", "cut"}


def general():
    """The Rescaling hides from the diagnosis what leads to z."""
    model = net(L.Dense(2, kernel_initializer="ones"), L.Rescaling(-1.0), L.ReLU(name="r"), L.Dense(1))
    return diagnose(model, (X, Y)), {"general", "cut"}


class Shock(K.callbacks.Callback):
    """A learning rate that is far too high at a single step."""

    def __init__(self, step, rate):
        super().__init__()
        self.step, self.rate, self.done = step, rate, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate.assign(self.rate if self.done == self.step else 0.001)
        self.done += 1


def shocked(probe, step=33, rate=100.0, **options):
    rng = np.random.default_rng(0)
    x = rng.random((80, 4), np.float32)
    y = x.sum(axis=1, keepdims=True)
    model = net(L.Dense(16, "relu", name="hidden", kernel_initializer=POSITIVE), L.Dense(1), inputs=4, **options)
    model.fit(x, y, batch_size=8, epochs=5, verbose=0, shuffle=False, callbacks=[probe, Shock(step, rate)])
    return diagnose(model, (x, y), probe=probe)


def learning_rate():
    return shocked(ReluProbe()), {"learning_rate", "cut"}


def penalising_layer():
    """The same by a layer of its own behind the ReLU."""
    layers = [L.Dense(1, "relu", kernel_initializer="ones"), L.ActivityRegularization(l1=1.0), L.Dense(1)]
    return trained_to_zero(net(*layers)), {"regularizer", "cut"}


def trained_to_zero(model):
    model.compile(K.optimizers.SGD(0.05), "mse")
    probe = ReluProbe()
    model.fit(X, Y * 0, epochs=40, verbose=0, callbacks=[probe])
    return diagnose(model, (X, Y * 0), probe=probe)


def regularizer():
    """The activity regulariser kills a neuron that fires at first."""
    model = net(L.Dense(1, "relu", kernel_initializer="ones", activity_regularizer=K.regularizers.L1(1.0)), L.Dense(1))
    return trained_to_zero(model), {"regularizer", "cut"}


def batchnorm_lag():
    """In training the batch's own mean is subtracted; the moving mean is far above it."""
    norm = L.BatchNormalization(momentum=0.999)
    model = net(L.Dense(2, kernel_initializer="ones", trainable=False), norm, L.ReLU(name="r"), L.Dense(1))
    norm.set_weights([np.ones(2), np.zeros(2), np.full(2, 99.0), np.ones(2)])
    probe = ReluProbe()
    model.fit(X, Y, verbose=0, callbacks=[probe])
    return diagnose(model, (X, Y), probe=probe), {"batchnorm_lag", "cut"}


CASES = [
    *(dead_output, zero_kernel, zero_input, bias_start, beta_start, threshold, trained_down, targets, inputs),
    *(negative_inputs, inner_inputs),
    *(narrow, second_cause, no_path, loss, saturated, outgoing, nan_data, nan_weights, nan_arithmetic),
    *(general, learning_rate, regularizer, penalising_layer, batchnorm_lag),
]


@pytest.fixture(scope="module")
def found():
    return {case.__name__: case() for case in CASES}


@pytest.mark.parametrize("name", [case.__name__ for case in CASES])
def test_a_planted_case_gets_its_advice_and_no_other(found, name):
    diagnosis, kinds = found[name]
    advice = diagnosis.advice
    assert {each.kind for each in advice} == kinds
    for each in advice:
        assert each.layers == tuple(each.neurons)
        assert all(mask.any() and len(mask) == diagnosis.report[layer].neurons for layer, mask in each.neurons.items())
        assert each.text
        assert each.source


def test_every_kind_has_a_case(found):
    assert {kind for _, kinds in found.values() for kind in kinds} == set(KINDS)


@pytest.mark.once
def test_swapping_the_triggers_of_any_two_kinds_is_found(found, monkeypatch):
    """The planted mistakes: a case of one of the two kinds then gets the other."""
    for pair in combinations(dict.fromkeys(kind for kind, *_ in TRIGGERS), 2):
        swapped = dict(zip(pair, reversed(pair)))
        rules = tuple((swapped.get(kind, kind), *rest) for kind, *rest in TRIGGERS)
        monkeypatch.setattr(triggers, "_TRIGGERS", rules)
        cases = [(diagnosis, kinds) for diagnosis, kinds in found.values() if len(kinds & set(pair)) == 1]
        assert any({each.kind for each in diagnosis.advice} != kinds for diagnosis, kinds in cases), pair


def test_a_healthy_model_gets_no_advice():
    diagnosis = diagnose(net(L.Dense(3, "relu", kernel_initializer="ones"), L.Dense(1)), (X, Y))
    assert (diagnosis.advice, diagnosis.first_sick_layer) == ((), None)


@pytest.mark.parametrize(
    ("optimizer", "clips"), [("sgd", True), ("adam", False), ("rmsprop", False), ("adagrad", False)]
)
def test_clipping_is_no_advice_for_an_optimizer_that_ignores_the_size_of_gradients(optimizer, clips):
    model = net(L.Dense(2, "relu"), L.Dense(1))
    model.compile(optimizer, "mse")
    set_weights(model.layers[0], 1, -99)
    assert ("clip" in str(diagnose(model, (X, Y)))) == clips


def test_deaths_at_a_jump_of_the_loss_are_dated():
    diagnosis = shocked(ReluProbe())
    text = " ".join(str(diagnosis).split())
    last = diagnosis.history["hidden"].last_active[diagnosis.layers["hidden"].report.dead]
    assert np.bincount(last[last >= 0]).argmax() in (33, 34)
    assert "and at step 34 the loss jumped from" in text


def test_without_a_jump_the_rate_is_not_blamed():
    assert shocked(ReluProbe(), rate=0.001).advice == ()


def test_deaths_between_reports_of_given_data_are_blamed_on_the_rate_where_the_loss_jumped():
    rng = np.random.default_rng(0)
    x = rng.random((80, 4), np.float32)
    probe = ReluProbe(data=(x, x.sum(axis=1, keepdims=True)), at_start=True)
    (advice, *_) = shocked(probe).advice
    assert advice.kind == "learning_rate"
    assert "died in epoch 3, in which the loss jumped from" in advice.findings["hidden"]


def test_the_same_advice_stands_once():
    """Neurons that died at a jump, and four that died at another time: the rate is advised once, and then referred to."""
    diagnosis = shocked(ReluProbe())
    layer = diagnosis.layers["hidden"]
    history = diagnosis.history["hidden"]
    last = history.last_active.copy()
    last[[0, 1, 2, 3]] = 25
    moved = replace(diagnosis, history=type(diagnosis.history)(hidden=replace(history, last_active=last)))
    assert layer.report.dead[:4].all()
    texts = {each.kind: each.text for each in moved.advice}
    assert texts["trained_down"] == "Lower the learning rate, for these neurons too."
    assert str(moved).count("Lower the learning rate of SGD") == 1


def test_neurons_that_a_training_before_this_fit_moved_down_are_told_so():
    """A probe that never saw them fire does not hide that the initialiser had put them elsewhere."""
    model = net(
        L.Dense(3, "relu", kernel_initializer="ones", name="hidden"), L.Dense(1), optimizer=K.optimizers.SGD(0.0)
    )
    set_weights(model.layers[0], 1, [-99, -99, 0])
    model.fit(X, Y, verbose=0, callbacks=[probe := ReluProbe()])
    (advice,) = diagnose(model, (X, Y), probe=probe).advice
    assert (advice.kind, list(advice.neurons["hidden"])) == ("trained_down", [True, True, False])


def test_a_jump_that_holds_no_more_deaths_than_one_before_it_is_not_blamed():
    diagnosis = shocked(ReluProbe())
    (jump,) = [each for each in diagnosis.loss_jumps if each.is_large]
    later = jump._replace(step=jump.step + 10, since=jump.since or jump.step, after=jump.after * 100)
    moved = replace(diagnosis, loss_jumps=(jump, later))
    (advice,) = [each for each in moved.advice if each.kind == "learning_rate"]
    assert f"at step {jump.step:,} the loss" in advice.findings["hidden"]


def test_advice_has_room_beside_many_dates():
    diagnosis = shocked(ReluProbe())
    layer, history = diagnosis.layers["hidden"], diagnosis.history["hidden"]
    epochs = np.arange(len(history.dead_since)) * layer.report.dead
    moved = replace(history, dead_since=np.where(layer.report.dead, epochs, -1), found_dead=epochs + 1)
    summary = str(replace(diagnosis, history=type(diagnosis.history)(hidden=moved))).split("\n\n")[0].splitlines()
    assert len(summary) <= 10
    assert any(line.startswith(" 1. ") for line in summary)
    assert " and more: diagnosis.history has all dates." in summary


def text_of(diagnosis, kind):
    (advice,) = [each for each in diagnosis.advice if each.kind == kind]
    return advice.text


@pytest.mark.once
def test_inputs_are_standardised_and_what_arrives_at_an_inner_layer_is_centred():
    assert "Standardise the inputs" in text_of(inputs()[0], "inputs")
    assert "a BatchNormalization before it" in text_of(inner_inputs()[0], "inputs")


@pytest.mark.once
def test_large_inputs_are_standardised_even_if_they_are_centred():
    """The weights stand upright on all samples."""
    model = net(L.Dense(2, "relu", kernel_initializer="ones"), L.Dense(1))
    for scale, kind in ((100, "inputs"), (1, "general")):
        found = diagnose(model, (scale * CENTRED, TARGETS))
        assert [each.kind for each in found.advice] == [kind, "cut"]
        assert ("their root mean square is 158" in " ".join(str(found).split())) == (scale == 100)


@pytest.mark.once
@pytest.mark.parametrize(
    ("loss", "large"),
    [
        ("mse", True),
        ("mean_squared_error", True),
        (K.losses.MeanSquaredError(), True),
        ([K.losses.get("mse")], True),
        ("mae", False),
        (K.losses.Huber(), False),
        (lambda y, p: tf.reduce_mean((y - p) ** 2, -1), False),  # what the user's function computes is not known
    ],
)
def test_large_targets_are_blamed_where_the_gradients_grow_with_them(loss, large):
    model = net(L.Dense(2, "relu", kernel_initializer="ones"), L.Dense(1))
    set_weights(model.layers[0], [[1, 1], [0, 0]], -99)
    model.compile("sgd", loss)
    found = diagnose(model, (CENTRED, np.array([[20.0], [-20.0], [0.0], [0.0]])), batch_size=1)
    assert [each.kind for each in found.advice] == ["targets"] * large + ["trained_down", "cut"]
    assert ("their root mean square is 14.1." in " ".join(str(found).split())) == large


@pytest.mark.once
@pytest.mark.parametrize("scale", [1, 300])
def test_weights_that_blew_up_on_large_targets_are_told_so(scale):
    x = K.Input((2,))
    model = K.Model(x, L.Dense(1)(L.Concatenate()([x, L.Dense(4, "relu")(x)])))
    model.compile(K.optimizers.SGD(9.0), "mse")
    probe = ReluProbe()
    model.fit(X, scale * Y, epochs=100, verbose=0, callbacks=[probe])
    kinds = [each.kind for each in diagnose(model, (X, scale * Y), probe=probe).advice]
    assert kinds == ["nan_weights", *(["targets"] if scale > 20 else []), "learning_rate"]


@pytest.mark.once
def test_the_neurons_that_no_other_advice_is_about_get_the_general_one():
    """One neuron has no weights, and the weights of two others stand upright on all samples, which are centred."""
    model = net(L.Dense(4, "relu", name="h"), L.Dense(1, kernel_initializer="ones"))
    set_weights(model.layers[0], [[0, 1, 1, 1], [0, 1, 1, -1]], 0)
    found = diagnose(model, (CENTRED, TARGETS))
    assert {each.kind: each.neurons["h"].tolist() for each in found.advice} == {
        "zero_kernel": [True, False, False, False],
        "general": [False, True, True, False],
    }


@pytest.mark.once
def test_the_probe_is_advised_only_to_those_who_have_none():
    diagnosis, _ = general()
    assert "probe=..." in text_of(diagnosis, "general")
    assert "probe" not in text_of(replace(diagnosis, history=History()), "general")


@pytest.mark.once
@pytest.mark.parametrize(
    ("width", "dead", "kinds"),
    [
        (10, 2, ["trained_down"]),
        (11, 2, []),
        (5, 1, ["trained_down"]),
        (6, 1, []),
    ],
)
def test_few_sick_neurons_are_no_reason_for_advice(width, dead, kinds):
    """Of neurons that the training has moved down; a setting that is wrong is one whatever it holds down."""
    model = net(L.Dense(width, "relu"), L.Dense(1, kernel_initializer="ones"))
    set_weights(model.layers[0], np.eye(2, 1), np.where(np.arange(width) < dead, -99.0, 0.0))
    found = diagnose(model, (CENTRED, TARGETS))
    assert [each.kind for each in found.advice] == kinds
    words = "No advice: less than 20 % of each layer is sick by itself"
    assert (words in " ".join(str(found).split())) == (not kinds)


@pytest.mark.once
def test_a_cut_can_be_healed_by_revive_where_that_is_said():
    model = net(L.Dense(8, "relu", bias_initializer=constant(-99.0), name="h"), L.Dense(1), inputs=4, optimizer="adam")
    x = np.random.default_rng(0).normal(size=(300, 4)).astype("f")
    y = np.abs(x[:, :1])
    assert "or bring the layer back with relu_probe.revive" in text_of(diagnose(model, (x, y)), "cut")
    assert "revive" not in text_of(general()[0], "cut")
    assert "revive" not in text_of(dead_output()[0], "cut")
    model.fit(x, y, epochs=3, verbose=0)
    before = model.evaluate(x, y, verbose=0)
    assert diagnose(model, (x, y)).report.dead_fraction == 1
    revive(model, (x, y))
    assert model.evaluate(x, y, verbose=0) == before
    model.fit(x, y, epochs=3, verbose=0)
    assert diagnose(model, (x, y)).report.zero_gradient_fraction == 0
    assert model.evaluate(x, y, verbose=0) < before


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (0.5, "Lower the learning rate of SGD (it is 0.5), tenfold at first, or clip"),
        (0.0, "Lower the learning rate of SGD, which is 0 now, from what it was in the training, tenfold at first"),
        (K.optimizers.schedules.CosineDecay(0.1, 1), "Lower all rates of the CosineDecay of SGD, tenfold at first"),
    ],
)
def test_the_learning_rate_that_is_to_be_lowered(rate, words):
    model = net(L.Dense(2, "relu", kernel_initializer="ones"), L.Dense(1))
    model.compile(K.optimizers.SGD(rate), "mse")
    set_weights(model.layers[0], [[1, 1], [0, 0]], -99)
    assert words in text_of(diagnose(model, (CENTRED, TARGETS)), "trained_down")
