"""The text of a diagnosis: a summary of at most ten lines, then the layers, each fact once."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from models import OwnCell, sequential

from relu_probe import ReluProbe, diagnose
from relu_probe.report.loss_jumps import LossJump

L = tf.keras.layers


def text_and_kinds(found):
    """The text of a diagnosis on one line, and the kinds of its advice."""
    return " ".join(str(found).split()), [advice.kind for advice in found.advice]


def net(*layers, inputs=2, **options):
    return sequential(inputs, *layers, **options)


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
    text, _ = text_and_kinds(diagnose(model, (X * np.nan, Y)))
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
    assert text.count(" 1. ") == 1
    assert re.search(f" 1. ([ab and]+: )?{words}", text)


def test_nan_labels_are_data():
    model, _ = nan_in_the_weights()
    text = " ".join(str(diagnose(model, (X, Y * np.nan))).split())
    assert "The data contains NaN or infinities. Clean it, labels included" in text
    assert "The data contains" not in " ".join(str(diagnose(model, (X, Y))).split())


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


def low_and_high():
    """A wholly dead layer, and one behind it that gets nothing but zeros."""
    model = net(L.Dense(3, "relu", name="low"), L.Dense(2, "relu", name="high"), L.Dense(1))
    set_weights(model.layers[0], [[1, 1, -1], [1, 1, -1]], [-9, -8, 0])
    set_weights(model.layers[1], 1, 0)
    return model


def test_the_whole_text():
    assert str(diagnose(low_and_high(), (X, Y), bounds=(0, 4))) == (
        """\
2 of 2 ReLU layers have dead or blocked neurons on N = 2 samples. The root is
low.
 1. low: Lower the learning rate of SGD, which is 0 now, from what it was in the
    training, tenfold at first, or clip the gradients (clipnorm=1.0 in the
    optimizer).
 2. low: Standardise the inputs (keras.layers.Normalization): mean 0 and
    deviation 1 over the training data.
 3. low: Mend the cause, then start again from new weights, or bring the layer
    back with relu_probe.revive: further training cannot wake this layer.

low: 3 of 3 neurons dead, 0 blocked.
  bias (2 neurons): w.x > 0 on some sample, but the bias keeps z <= 0; their
    largest z lies between -2 and -1.
  weights (1 neuron): w.x <= 0 on every sample; its largest z is -3.
  1 of 3 neurons is certified dead: no input within the bounds activates it.
    [Gowal et al. 2018, arXiv:1810.12715]
  -> 1. The initialiser of the bias gives 0; that of 2 neurons is now below
    zero. [Goodfellow et al. 2016, Deep Learning, section 11.4.1]
  -> 2. The inputs of this first layer are off centre: the norm of their mean is
    2.55 times that of their deviation. [LeCun et al. 1998, Efficient BackProp,
    section 4.3]
  -> 3. The layer is dead as a whole: no gradient passes through it, so that
    neither its weights nor those that only it connects with the loss can change
    any more. [by definition: dL/dz = 0 where a ReLU is off]

high: its inputs died with low.

With 95 % confidence a dead neuron fires on less than 77.64 % of samples like
these; all dead neurons of a layer at once on less than 87.09 %. [Clopper and
Pearson 1934]"""
    )


def test_the_summary_has_at_most_ten_lines_and_each_fact_stands_once():
    hidden = [L.Dense(2, "relu", name=f"hidden{i}") for i in range(12)]
    model = net(*hidden, L.Dense(1))
    for i, layer in enumerate(hidden):  # each has one neuron of its own that is dead
        set_weights(layer, [[1, -1]] if i else [[1, -1], [1, -1]], [0.1, -0.1])
    text = str(diagnose(model, (X, Y), bounds=(0, 4)))
    assert len(text.split("\n\n", maxsplit=1)[0].splitlines()) <= 10
    assert text.count("confidence") == 1
    assert max(map(len, text.splitlines())) <= 80


def test_singular_plural_and_ranges():
    model = net(L.Dense(2, "relu", name="hidden"), L.Dense(1))
    set_weights(model.layers[0], 1, -100)
    text, _ = text_and_kinds(diagnose(model, (X, Y), bounds=(0, 4), confidence=0.9999))
    assert "bias (2 neurons): w.x > 0 on some sample, but the bias keeps z <= 0; their largest z is -93." in text
    assert "With 99.99 % confidence a dead neuron fires on less than 99 % of samples" in text
    assert "2 of 2 neurons are certified dead: no input within the bounds activates them." in text
    set_weights(model.layers[0], 1, [-100, -50.5])
    assert "their largest z lies between -93 and -43.5." in text_and_kinds(diagnose(model, (X, Y)))[0]


def test_data_outside_of_the_bounds_is_said():
    model = low_and_high()
    words = "The data reaches from 1 to 4, outside of the bounds: what is certified holds inside of them only."
    assert words in text_and_kinds(diagnose(model, (X, Y), bounds=(0, 1)))[0]
    assert "The data reaches" not in str(diagnose(model, (X, Y), bounds=(1, 4)))
    assert (
        words in text_and_kinds(diagnose(model, (X, Y), bounds=([1, 2], [3, 3])))[0]
    )  # the second input leaves its own
    assert "The data reaches" not in str(diagnose(model, (X, Y)))


def test_a_gan_is_diagnosed_part_by_part():
    class GAN(tf.keras.Model):
        def __init__(self):
            super().__init__(name="gan")
            self.generator, self.discriminator = (tf.keras.Sequential([L.Dense(2, "relu")]) for _ in range(2))

    with pytest.raises(ValueError, match="no call") as error:
        diagnose(GAN(), X)
    assert str(error.value) == (
        "model 'gan' has no call of its own, so it cannot be run on data; expected a model that can. Measure or diagnose its "
        "parts, gan.generator and gan.discriminator, each with data of its own."
    )


def test_healthy_is_qualified_by_what_is_not_counted():
    x = tf.keras.Input((3, 2))
    inner = L.RNN(OwnCell(), name="rnn")(x)
    y = L.Dense(3, "relu", kernel_initializer="ones", name="seen")(inner)
    model = tf.keras.Model(x, L.Dense(1)(y))
    found = diagnose(model, np.ones((4, 3, 2), "f"))
    assert found.report.unseen == {"rnn": "relu inside its cells"}
    assert str(found).startswith("Healthy as far as seen: 1 of 2 ReLUs: none of")


def test_a_model_of_which_nothing_can_be_counted_is_not_judged():
    x = tf.keras.Input((5, 4))
    model = tf.keras.Model(x, L.Dense(1)(L.RNN(OwnCell(), name="rnn")(x)))
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="none of the model's ReLUs can be counted"):
        found = diagnose(model, (np.ones((4, 5, 4), "f"), np.ones((4, 1))))
    assert (found.advice, found.first_sick_layer, dict(found.layers)) == ((), None, {})
    text = str(found)
    assert text.startswith("Nothing was judged: no ReLU of the model is counted.\n\nrnn: not counted: ")
    assert "Blocked" not in text


# --- with the probe of the training -----------------------------------------------------------------------------------


def test_the_dates_of_deaths():
    model = net(L.Dense(2, "relu", name="hidden", bias_initializer=tf.keras.initializers.Constant(-100.0)), L.Dense(1))
    set_weights(model.layers[0], 1, -100)
    proved, counted = ReluProbe(data=(X, Y), at_start=True, name="proved"), ReluProbe()
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[proved, counted])
    text, kinds = text_and_kinds(diagnose(model, (X, Y), probe=proved))
    assert kinds == ["bias_start", "cut"]
    assert "hidden: 2 born dead." in text
    assert "born dead" not in str(diagnose(model, (X, Y)))


class KillAfter(tf.keras.callbacks.Callback):
    """Kills both neurons after a training step, the first one a step before."""

    def __init__(self, step):
        super().__init__()
        self.step, self.done = step, 0

    def on_train_batch_end(self, batch, logs=None):
        biases = [-100.0 if self.done >= self.step - 1 else 5.0, -100.0 if self.done >= self.step else 5.0]
        set_weights(self.model.layers[0], 1, biases)
        self.done += 1


def killed_after(step, repeats):
    model, probe = net(L.Dense(2, "relu", name="hidden"), L.Dense(1)), ReluProbe()
    set_weights(model.layers[0], 1, 5)
    x, y = np.repeat(X, repeats, axis=0), np.repeat(Y, repeats, axis=0)
    model.fit(x, y, batch_size=2, epochs=4, verbose=0, callbacks=[probe, KillAfter(step)])
    return probe, text_and_kinds(diagnose(model, (x, y), probe=probe))[0]


def test_a_death_in_the_middle_of_an_epoch_has_two_dates():
    """An epoch has five steps. The neurons are last active in steps 6 and 7, in epoch 1, which finds neither of them dead."""
    probe, text = killed_after(7, 5)
    assert [report.dead_fraction for report in probe.reports] == [0, 0, 1, 1]
    assert "hidden: 2 died at training steps 6 to 7 (epoch 1), so that they are dead in all of epoch 2." in text


def test_a_death_between_two_epochs_has_one_date():
    _, text = killed_after(1, 1)  # an epoch has one step
    assert "hidden: 1 died after training step 0, so that it is dead in all of epoch 1; 1 died after" in text


def test_a_frame_has_a_row_a_neuron():
    pytest.importorskip("pandas")
    frame = diagnose(low_and_high(), (X, Y)).to_frame()
    assert frame[["layer", "neuron", "cause", "margin"]].values.tolist() == [
        ["low", 0, "bias", -2.0],
        ["low", 1, "bias", -1.0],
        ["low", 2, "weights", -3.0],
        ["high", 0, "input", 0.0],
        ["high", 1, "input", 0.0],
    ]
