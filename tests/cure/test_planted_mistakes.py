"""Mistakes planted in `revive`, each of which is refused: predictions that would change, and failures half-way."""

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import measure, revive
from relu_probe.cure import operation as module
from relu_probe.cure.plan import Planner
from relu_probe.diagnosis import consumers

pytestmark = pytest.mark.once

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).standard_normal((200, 4, 4, 2)).astype("float32")
Y = X.sum((1, 2, 3))[:, None]


def dead(units, name, kind=L.Dense, *args, **more):
    return kind(units, *args, activation="relu", bias_initializer=K.initializers.Constant(-50.0), name=name, **more)


def image_net():
    """A convolution whose channels are dead, and a dead layer behind it that only its channels can wake."""
    conv = dead(2, "conv", L.Conv2D, 3)
    model = sequential((4, 4, 2), conv, L.Flatten(), dead(3, "follower"), L.Dense(1), optimizer=K.optimizers.Adam())
    model.fit(X, Y, verbose=0)
    return model


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.asarray(tf.convert_to_tensor(v)).tobytes() for v in variables]


def assert_refused(model, error=RuntimeError, match="changed a prediction on the data by"):
    before = state(model)
    with pytest.raises(error, match=match):
        revive(model, (X, Y), fire=0.9)
    assert state(model) == before


def test_without_a_mistake_both_layers_are_revived():
    model = image_net()
    before = np.asarray(model(X))
    assert revive(model, (X, Y), fire=0.9).revived == 5
    assert np.array_equal(before, np.asarray(model(X)))
    assert not any(layer.dead.any() for layer in measure(model, X).layers.values())


def test_outgoing_weights_kept(monkeypatch):
    monkeypatch.setattr(module, "close_gates", lambda *args: None)
    assert_refused(image_net())


def test_an_output_revived(monkeypatch):
    x = K.Input((4, 4, 2))
    model = K.Model(x, dead(2, "output")(L.Flatten()(x)))
    model.compile("sgd", "mse")
    assert revive(model, X).revived == 0
    monkeypatch.setattr(Planner, "_gates", lambda self, relu: [])
    assert_refused(model)


def test_repeat_for_tile(monkeypatch):
    model = image_net()
    model.get_layer("conv").bias.assign([-50.0, 50.0])
    model.get_layer("follower").bias.assign(tf.ones(3) * 1000)
    before = np.asarray(model(X))
    revival = revive(model, (X, Y))
    assert (revival.revived, np.array_equal(before, np.asarray(model(X)))) == (1, True)
    revival.undo()
    repeated = {**consumers._MOVES, "Flatten": lambda call, tensor, sources: np.sort(sources.reshape(-1))}
    monkeypatch.setattr(consumers, "_MOVES", repeated)
    assert_refused(model)


def test_a_follower_before_its_root(monkeypatch):
    """It is then dead for want of an input, which its root would have given it."""
    run = module.Operation.run

    def reversed_run(self, validation):
        self.plans.reverse()
        return run(self, validation)

    monkeypatch.setattr(module.Operation, "run", reversed_run)
    revival = revive(image_net(), (X, Y), fire=0.9)
    assert revival.revived < 5
    assert list(revival.layers["follower"].left) == ["nothing but zeros reaches it"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["close_gates", "reset_slots", "predictions"])
def test_everything_is_as_before_if_something_fails_half_way(monkeypatch, name, error):
    done = getattr(module, name)

    def fails(*args):
        done(*args)
        raise error("planted")

    model = image_net()
    monkeypatch.setattr(module, name, fails)
    assert_refused(model, error, "planted")
    monkeypatch.undo()
    assert revive(model, (X, Y), fire=0.9).revived == 5
