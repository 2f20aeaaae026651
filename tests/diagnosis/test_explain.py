"""The text of a diagnosis. Every remedy appears with the finding that triggers it, and never without."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe, diagnose
from relu_probe.report.loss_jumps import LossJump

L = tf.keras.layers
SOURCES = {
    "loss jump": "Pascanu et al. 2013, arXiv:1211.5063",
    "bias": "Goodfellow et al. 2016, Deep Learning, section 6.3.1",
    "beta": "Ioffe and Szegedy 2015, arXiv:1502.03167",
    "threshold": "by definition: the threshold is subtracted from the bias",
    "one-sided": "LeCun et al. 1998, Efficient BackProp, section 4.3",
    "narrow": "Lu et al. 2019, arXiv:1903.06733",
    "upstream": "by definition: z = b wherever the input is zero",
    "loss": "measured: dL/dy = 0",
    "saturated": "by definition: relu'(z) = 0 at the ceiling",
    "outgoing": "Goodfellow et al. 2016, Deep Learning, section 8.4",
    "downstream": "by definition: dL/da is a sum over what a feeds",
}


def text_and_remedies(found):
    """The text of a diagnosis on one line, and the names of the remedies in it."""
    text = " ".join(str(found).split())
    return text, [name for name, source in SOURCES.items() if f"[{source}]" in text]


def net(*layers, inputs=2):
    return sequential(inputs, *layers)


def set_weights(layer, kernel, bias):
    layer.set_weights(
        [np.broadcast_to(np.asarray(v, np.float32), w.shape) for v, w in zip((kernel, bias), layer.weights)]
    )


X, Y = np.array([[1, 2], [3, 4]], np.float32), np.full((2, 1), 0.5, np.float32)


def test_healthy():
    model = net(L.Dense(3, "relu", kernel_initializer="ones"), L.Dense(1))
    assert str(diagnose(model, (X, Y))) == "Healthy: none of the 3 ReLU neurons is dead or blocked on N = 2 samples."
    assert str(diagnose(model, X)).splitlines() == [
        "Healthy: none of the 3 ReLU neurons is dead on N = 2 samples.",
        "",
        "Blocked neurons were not looked for: the data has no labels, or the model has no",
        "compiled loss.",
    ]


def test_nan_is_not_healthy():
    model = net(L.Dense(3, "relu", kernel_initializer="ones", name="hidden"), L.Dense(1))
    text, _ = text_and_remedies(diagnose(model, (X * np.nan, Y)))
    assert text.startswith("No neuron was found dead or blocked on N = 2 samples, but not all neurons could be judged.")
    assert "hidden: NaN at 3 neurons, neither active nor dead." in text


def nan_in_the_data():
    return net(L.Dense(3, "relu", name="a"), L.Dense(2, "relu", name="b"), L.Dense(1)), X * np.nan


def nan_in_the_weights():
    model, _ = nan_in_the_data()
    set_weights(model.layers[0], 1, 0)
    set_weights(model.layers[1], np.nan, 0)
    return model, X


def infinite_weights():
    model, _ = nan_in_the_data()
    set_weights(model.layers[0], [[np.inf] * 3, [-np.inf] * 3], 0)
    return model, X


def nan_on_the_way():
    model = net(L.Dense(2), L.Rescaling(np.inf), L.ReLU(name="c"), L.Dense(1))
    set_weights(model.layers[0], 0, 0)
    return model, X


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (nan_in_the_data, "The data contains NaN or infinities. Clean it"),
        (nan_in_the_weights, "The weights contain NaN or infinities, first in \\S*b/kernel"),
        (infinite_weights, "The weights contain NaN or infinities, first in \\S*a/kernel"),
        (nan_on_the_way, "The weights and the data are finite. Look at what comes before the first layer with NaN:"),
    ],
)
def test_the_origin_of_nan(case, words):
    model, x = case()
    text = " ".join(str(diagnose(model, (x, Y))).split())
    assert text.count("->") == 1
    assert re.search(f"-> {words}", text)


def test_nan_labels_are_data():
    model, _ = nan_in_the_weights()
    text = " ".join(str(diagnose(model, (X, Y * np.nan))).split())
    assert "-> The data contains NaN or infinities. Clean it, labels included" in text
    assert "-> The data contains" not in " ".join(str(diagnose(model, (X, Y))).split())


def test_the_last_loss_that_was_not_finite_is_dated():
    model, _ = nan_in_the_weights()
    jumps = (LossJump(3, 1.0, np.inf), LossJump(12, 1.0, np.nan), LossJump(20, 1.0, 9.0))
    text = " ".join(str(replace(diagnose(model, X), loss_jumps=jumps)).split())
    assert "At training step 12 the loss was no longer finite." in text


def test_nan_in_a_fit_are_printed_once_and_dated(capsys):
    model = net(L.Dense(3, "relu", name="hidden"), L.Dense(1))
    set_weights(model.layers[0], 1, 0)
    set_weights(model.layers[1], 1, 0)
    model.compile(tf.keras.optimizers.SGD(1e9), "mse")
    probe = ReluProbe()
    model.fit(np.tile(X, (16, 1)), np.tile(Y, (16, 1)), batch_size=8, epochs=4, verbose=0, callbacks=[probe])
    epoch = next(report.epoch for report in probe.reports if report["hidden"].nan.any())
    assert capsys.readouterr().out.split("\n") == [
        "",
        f"relu_probe: NaN in epoch {epoch} at 3 of 3 neurons, first in layer hidden, counted",
        "neither as active nor as dead. More: print(diagnose(model, data, probe=probe))",
        "",
    ]
    lost = next(jump.step for jump in probe.loss_jumps if not np.isfinite(jump.after))
    text = " ".join(str(diagnose(model, (X, Y), probe=probe)).split())
    assert f"At training step {lost} the loss was no longer finite." in text


def test_the_whole_text():
    model = net(L.Dense(3, "relu", name="hidden"), L.Dense(1))
    set_weights(model.layers[0], [[1, 1, -1], [1, 1, -1]], [0, -8, 0])
    set_weights(model.layers[1], 1, 0)
    assert str(diagnose(model, (X, Y), bounds=(0, 4))) == (
        """\
1 of 1 ReLU layer has dead or blocked neurons on N = 2 samples; the first sick
layer is hidden.

hidden: 2 of 3 neurons dead, 0 blocked.
  bias (1 neuron): w.x > 0 on some sample, but the bias keeps z <= 0; its
    largest z is -1.
  weights (1 neuron): w.x <= 0 on every sample; its largest z is -3.
  With 95 % confidence each of these dead neurons fires on less than 77.64 % of
    samples like these. The limit that holds for all neurons of the layer at
    once is 87.09 %. [Clopper and Pearson 1934]
  None of the 3 neurons is certified dead within the bounds. [Gowal et al. 2018,
    arXiv:1810.12715]
  -> The bias holds down 1 neuron, which some sample would make fire. Initialise
    the bias at zero or at a small positive value, such as 0.1. [Goodfellow et
    al. 2016, Deep Learning, section 6.3.1]
  -> No input of this first layer is negative (the smallest is 1), and in 1
    neuron w.x <= 0 on all samples. Standardise the inputs: subtract from each
    its mean over the training data, divide by its standard deviation. [LeCun et
    al. 1998, Efficient BackProp, section 4.3]"""
    )


def bias():
    model = net(L.Dense(2, "relu", name="hidden"), L.Dense(1))
    set_weights(model.layers[0], 1, -100)
    return model, ["bias"]


def beta():
    model = net(
        L.Dense(2), L.BatchNormalization(beta_initializer=tf.keras.initializers.Constant(-99)), L.ReLU(), L.Dense(1)
    )
    set_weights(model.layers[0], 1, 0)
    return model, ["beta"]


def threshold():
    model = net(L.Dense(2), L.ReLU(threshold=50.0), L.Dense(1))
    set_weights(model.layers[0], 1, 0)
    return model, ["threshold"]


def one_sided():
    model = net(L.Dense(2, "relu"), L.Dense(1))
    set_weights(model.layers[0], -1, 0)
    return model, ["one-sided"]


def weights_behind_a_layer():
    """The cause is "weights", but not in the first layer: there is no remedy."""
    model = net(L.Dense(2), L.Dense(2, "relu"), L.Dense(1))
    set_weights(model.layers[0], 1, 0)
    set_weights(model.layers[1], -1, 0)
    return model, []


def upstream():
    model = net(L.Dense(2, "relu", name="low"), L.Dense(2, "relu", name="high"), L.Dense(1))
    set_weights(model.layers[0], 1, -100)
    set_weights(model.layers[1], 1, -1)
    return model, ["bias", "upstream"]


def saturated():
    model = net(L.Dense(2), L.ReLU(1.0), L.Dense(1))
    set_weights(model.layers[0], 1, 0)
    set_weights(model.layers[2], 1, 0)
    return model, ["saturated"]


def outgoing():
    model = net(L.Dense(2, "relu", kernel_initializer="ones"), L.Dense(1, kernel_initializer="zeros"))
    return model, ["outgoing"]


def downstream():
    model = net(*[L.Dense(2, "relu", kernel_initializer="ones") for _ in range(2)], L.Dense(1))
    set_weights(model.layers[1], -1, 0)
    return model, ["downstream"]


def loss():
    model = net(
        L.Dense(1, "relu", kernel_initializer="zeros", bias_initializer="ones"), L.Dense(1, kernel_initializer="ones")
    )
    model.compile("sgd", lambda y, p: 0.0 * tf.reduce_sum(p, -1))
    return model, ["loss"]


@pytest.mark.parametrize(
    "case",
    [bias, beta, threshold, one_sided, weights_behind_a_layer, upstream, saturated, outgoing, downstream, loss],
)
def test_a_remedy_follows_from_its_finding_only(case):
    model, expected = case()
    text, remedies = text_and_remedies(diagnose(model, (X, Y)))
    assert remedies == expected, text
    assert text.count("->") == len(expected)


def test_singular_plural_and_ranges():
    model, _ = bias()
    text, _ = text_and_remedies(diagnose(model, (X, Y), bounds=(0, 4), confidence=0.9999))
    assert "bias (2 neurons): w.x > 0 on some sample, but the bias keeps z <= 0; their largest z is -93." in text
    assert "With 99.99 % confidence each of these dead neurons fires on less than 99 % of samples" in text
    assert "2 of 2 neurons are certified dead: no input within the bounds activates them." in text
    set_weights(model.layers[0], 1, [-100, -50.5])
    assert "their largest z lies between -93 and -43.5." in text_and_remedies(diagnose(model, (X, Y)))[0]
    single, _ = loss()
    text, _ = text_and_remedies(diagnose(single, (X, Y), bounds=(0, 4)))
    assert "0 of 1 neuron dead, 1 blocked. loss (1 neuron): no gradient leaves the loss for it." in text
    assert "The only neuron is not certified dead within the bounds." in text


def test_negative_inputs_need_no_standardising():
    model, _ = one_sided()
    set_weights(model.layers[0], [[-1, -1], [0, 0]], 0)
    assert text_and_remedies(diagnose(model, (X * [1, -1], Y)))[1] == []


def test_the_text_points_to_the_first_sick_layer():
    text, _ = text_and_remedies(diagnose(upstream()[0], (X, Y)))
    assert "the first sick layer is low." in text
    assert "Nothing but zeros reaches 2 neurons. The first sick layer is low. Look there first" in text


# --- with the probe of the training -----------------------------------------------------------------------------------


class Shock(tf.keras.callbacks.Callback):
    """A learning rate that is far too high at a single step."""

    def __init__(self, step, rate):
        super().__init__()
        self.step, self.rate, self.done = step, rate, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate.assign(self.rate if self.done == self.step else 0.001)
        self.done += 1


def shocked(step, rate, probe):
    rng = np.random.default_rng(0)
    x = rng.random((80, 4), np.float32)
    y = x.sum(axis=1, keepdims=True)
    model = net(L.Dense(16, "relu", name="hidden"), L.Dense(1), inputs=4)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, shuffle=False, callbacks=[probe, Shock(step, rate)])
    return diagnose(model, (x, y), probe=probe)


def test_deaths_at_a_jump_of_the_loss_call_for_a_lower_rate():
    found = shocked(13, 100.0, ReluProbe())
    text, remedies = text_and_remedies(found)
    assert "loss jump" in remedies, text
    assert "bias" not in remedies, text  # the biases were fine before the jump
    last_active = found.history["hidden"].last_active[found.layers["hidden"].report.dead]
    assert np.bincount(last_active[last_active >= 0]).argmax() in (13, 14)
    assert "dead neurons were last active at training step" in text
    assert "and at step 14 the loss jumped from" in text


def test_without_a_jump_or_a_probe_the_rate_is_not_blamed():
    assert "loss jump" not in text_and_remedies(shocked(13, 0.001, ReluProbe()))[1]
    model, _ = bias()
    probe = ReluProbe()
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[probe])
    text, remedies = text_and_remedies(diagnose(model, (X, Y), probe=probe))
    assert remedies == ["bias"]
    assert "When: 2 never active in this fit." in text
    assert "When:" not in text_and_remedies(diagnose(model, (X, Y)))[0]


class KillAfter(tf.keras.callbacks.Callback):
    """Kills both neurons after a training step, the first one a step before."""

    def __init__(self, step):
        super().__init__()
        self.step, self.done = step, 0

    def on_train_batch_end(self, batch, logs=None):
        biases = [-100.0 if self.done >= self.step - 1 else 5.0, -100.0 if self.done >= self.step else 5.0]
        set_weights(self.model.layers[0], 1, biases)
        self.done += 1


def test_a_death_in_the_middle_of_an_epoch_has_two_dates():
    """An epoch has five steps. The neurons are last active in steps 6 and 7, in epoch 1, which finds neither of them dead."""
    model, probe = bias()[0], ReluProbe()
    set_weights(model.layers[0], 1, 5)
    x, y = np.repeat(X, 5, axis=0), np.repeat(Y, 5, axis=0)
    model.fit(x, y, batch_size=2, epochs=4, verbose=0, callbacks=[probe, KillAfter(7)])
    assert [report.dead_fraction for report in probe.reports] == [0, 0, 1, 1]
    text, _ = text_and_remedies(diagnose(model, (x, y), probe=probe))
    assert "When: 2 died at training steps 7 to 8 (epoch 1), so that they are dead in all of epoch 2." in text


def test_a_death_between_two_epochs_has_one_date():
    model, probe = bias()[0], ReluProbe()
    set_weights(model.layers[0], 1, 5)
    model.fit(X, Y, batch_size=2, epochs=4, verbose=0, callbacks=[probe, KillAfter(1)])  # an epoch has one step
    text, _ = text_and_remedies(diagnose(model, (X, Y), probe=probe))
    assert "When: 1 died at training step 1 (epoch 1); 1 died at training step 2 (epoch 2)." in text


def test_a_bias_that_changed_later_was_not_initialised_wrongly():
    model, _ = bias()
    set_weights(model.layers[0], 1, 0)
    probe = ReluProbe()
    model.fit(X, Y, verbose=0, callbacks=[probe])
    set_weights(model.layers[0], 1, -100)
    text, remedies = text_and_remedies(diagnose(model, (X, Y), probe=probe))
    assert remedies == []
    assert "bias (2 neurons): w.x > 0 on some sample" in text


@pytest.mark.parametrize(("width", "expected"), [(2, ["one-sided", "narrow"]), (12, ["one-sided"])])
def test_a_narrow_net_that_was_born_dead_should_be_wider(width, expected):
    model = net(L.Dense(width, "relu", name="hidden"), L.Dense(1))
    set_weights(model.layers[0], -1, 0)
    probe = ReluProbe(data=(X, Y), at_start=True)
    model.fit(X, Y, verbose=0, callbacks=[probe])
    text, remedies = text_and_remedies(diagnose(model, (X, Y), probe=probe))
    assert remedies == expected
    if width == 2:
        assert "layers of 2 ReLUs: at initialisation one of these layers is all dead with probability 0.25." in text


def test_a_frame_has_a_row_a_neuron():
    pytest.importorskip("pandas")
    frame = diagnose(upstream()[0], (X, Y)).to_frame()
    assert frame[["layer", "neuron", "cause", "margin"]].values.tolist() == [
        ["low", 0, "bias", -93.0],
        ["low", 1, "bias", -93.0],
        ["high", 0, "input", -1.0],
        ["high", 1, "input", -1.0],
    ]
