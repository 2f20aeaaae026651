"""`shrink`: the compilation of the smaller model, and the training that goes on from the same state."""

import numpy as np
import pytest
import tensorflow as tf
from models import OwnSchedule
from shrink_models import data, dead, model_of, removed, shrunk

from relu_probe.cure import compilation

K, L = tf.keras, tf.keras.layers


def own_loss(y, p):
    return tf.reduce_mean(tf.abs(y - p))


@pytest.mark.parametrize("options", [{}, {"use_ema": True, "ema_momentum": 0.5}])
def test_training_goes_on_as_it_would_have(options):
    """Without noise the smaller model trains as the large one does, whose dead unit gets no gradient."""
    x = data(5)
    y = x.sum(1, keepdims=True)
    model = model_of(
        (5,), dead(L.Dense, 4, name="a"), optimizer=K.optimizers.Adam(0.01, **options), loss=own_loss, metrics=["mae"]
    )
    y = np.repeat(y, 2, 1)
    model.fit(x, y, epochs=3, verbose=0, shuffle=False)
    found = shrunk(model, x)
    assert found.optimizer_reset == ""
    new = found.model
    assert new.optimizer is not model.optimizer
    assert (
        int(tf.convert_to_tensor(new.optimizer.iterations)) == int(tf.convert_to_tensor(model.optimizer.iterations)) > 0
    )
    histories = [each.fit(x, y, epochs=3, verbose=0, shuffle=False).history for each in (model, new)]
    assert histories[0].keys() == histories[1].keys()
    for key in histories[0]:
        assert np.allclose(histories[0][key], histories[1][key], rtol=1e-4)
    kernels = [each.get_layer("a").get_weights()[0] for each in (model, new)]
    assert np.allclose(np.delete(kernels[0], 1, 1), kernels[1], atol=1e-5)


def test_an_optimizer_whose_state_is_not_known_starts_anew_and_that_is_said():
    model = model_of((5,), dead(L.Dense, 4, name="a"), optimizer=K.optimizers.Adafactor(0.01))
    model.fit(data(5), data(2), verbose=0)
    found = shrunk(model, data(5))
    assert "keeps state of which it is not known" in found.optimizer_reset
    assert "The optimizer starts without its state" in str(found)
    found.model.fit(data(5), data(2), verbose=0)


def test_a_model_that_is_not_compiled_stays_so():
    model = K.Sequential([K.Input((5,)), dead(L.Dense, 4, name="a"), L.Dense(1)])
    found = shrunk(model, data(5))
    assert getattr(found.model, "optimizer", None) is None
    assert removed(found) == {"a": [1]}


class OwnAdam(K.optimizers.Adam):
    """An optimizer of the user's, which need not be registered either."""


def scaled(optimizer):
    kind = getattr(K.mixed_precision, "LossScaleOptimizer", None) or K.optimizers.LossScaleOptimizer
    return kind(optimizer)


# The others divide by a norm of the whole weight (Lamb, Muon), or keep state of unknown layout (Adafactor).
KINDS = ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lion", "Nadam", "RMSprop", "SGD")
OPTIMIZERS = {
    **{name: getattr(K.optimizers, name) for name in KINDS},
    "a schedule": lambda: K.optimizers.SGD(K.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9),
    "a schedule of one's own": lambda: K.optimizers.Adam(OwnSchedule(0.1)),
    "own classes in mixed precision": lambda: scaled(OwnAdam(OwnSchedule(0.1))),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_goes_on_from_the_same_state(name):
    x, y = data(5), data(2)
    model = model_of((5,), dead(L.Dense, 4, name="a"), optimizer=OPTIMIZERS[name]())
    model.fit(x, y, epochs=2, verbose=0, shuffle=False)
    found = shrunk(model, x)
    assert found.optimizer_reset == ""
    losses = [each.fit(x, y, epochs=3, verbose=0, shuffle=False).history["loss"] for each in (model, found.model)]
    assert np.allclose(*losses, rtol=1e-4)


@pytest.mark.once
def test_an_optimizer_that_starts_anew_is_found(monkeypatch):
    """The planted mistake."""
    monkeypatch.setattr(compilation, "_carry_state", lambda new, model, cuts: "")
    with pytest.raises(AssertionError):
        test_each_optimizer_goes_on_from_the_same_state("Adam")


def test_a_rate_that_was_changed_later_is_kept():
    model = model_of((5,), dead(L.Dense, 4, name="a"), optimizer=K.optimizers.Adam(0.1))
    model.optimizer.learning_rate = 0.003
    rate = shrunk(model, data(5)).model.optimizer.learning_rate
    assert float(tf.convert_to_tensor(rate)) == pytest.approx(0.003)


def test_every_argument_of_compile_is_kept():
    x = {"u": K.Input((5,), name="u"), "v": K.Input((3,), name="v")}
    joined = L.Concatenate()([dead(L.Dense, 4, name="a")(x["u"]), dead(L.Dense, 3, name="b")(x["v"])])
    model = K.Model(x, {"p": L.Dense(1, name="p")(joined), "q": L.Dense(2, name="q")(joined)})
    losses, weights = {"p": own_loss, "q": "mae"}, {"p": 1.0, "q": 0.5}
    model.compile("adam", losses, loss_weights=weights, metrics={"p": ["mae"]}, weighted_metrics={"q": ["mse"]})
    model.run_eagerly = True
    given, labels = {"u": data(5), "v": data(3)}, {"p": data(1), "q": data(2)}
    model.fit(given, labels, verbose=0)
    new = shrunk(model, given).model
    each = [one.evaluate(given, labels, verbose=0, return_dict=True) for one in (model, new)]
    assert each[0].keys() == each[1].keys()
    assert np.allclose(list(each[0].values()), list(each[1].values()), rtol=1e-4)
    assert new.run_eagerly
