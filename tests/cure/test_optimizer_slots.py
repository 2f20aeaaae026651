"""The optimizer's slots of a revived neuron, against a table over every optimizer that Keras has."""

import numpy as np
import pytest
import tensorflow as tf
from keras_version import KERAS, LEGACY
from models import OwnSchedule, sequential

from relu_probe import revive
from relu_probe.cure import optimizer_slots

K, L = tf.keras, tf.keras.layers
X = np.random.default_rng(0).standard_normal((200, 3)).astype("float32")
Y = X.sum(1, keepdims=True)
NEW = not LEGACY and KERAS > (3, 4)
WEIGHT = "the weight itself"
# The initial values of the slots of each weight, in the order in which the optimizer makes them.
SLOTS = {
    "Adadelta": [0, 0],
    "Adagrad": [0.1],
    "Adam": [0, 0],
    "AdamW": [0, 0],
    "Adamax": [0, 0],
    "Ftrl": [0.1, 0],
    "Lamb": [0, 0],
    "Lion": [0],
    "Muon": None,  # another number of slots for kernels and biases; all begin at 0
    "Nadam": [0, 0],
    "RMSprop": [0],
    "SGD": [0] if LEGACY else [],
    "ScheduleFreeAdamW": [WEIGHT, 0],
}
REFUSED = {"Adafactor", "MultiOptimizer"}
OTHERS = {"Optimizer", "OptimizerMap", "LossScaleOptimizer"}
AVAILABLE = {name for name in dir(K.optimizers) if isinstance(getattr(K.optimizers, name), type)}


def trained(optimizer, dtype=None):
    """A net of distinct shapes after a few steps, in which neuron 1 of the hidden layer was killed then."""
    hidden = L.Dense(4, "relu", name="hidden", dtype=dtype)
    model = sequential(3, hidden, L.Dense(1, name="out"), optimizer=optimizer)
    model.fit(X, Y, batch_size=50, verbose=0)
    model.layers[0].bias.assign([0.0, -40.0, 0.0, 0.0])
    return model


def slots(optimizer):
    """Shape -> the values of the optimizer's variables of that shape, as arrays."""
    found = {}
    for variable in optimizer.variables:
        found.setdefault(tuple(variable.shape), []).append(np.array(tf.convert_to_tensor(variable)))
    return found


def touched(model):
    """Shape of each weight -> the index of what belongs to neuron 1, and the weight."""
    (kernel, bias), (out, _) = (layer.get_weights() for layer in model.layers)
    return {(3, 4): ((slice(None), 1), kernel), (4,): ((1,), bias), (4, 1): ((1,), out)}


def check(model, before, initial):
    """Asserts that the slots of neuron 1 have their initial values, and all others the values that they had."""
    after = slots(getattr(model.optimizer, "inner_optimizer", model.optimizer))
    for shape, (index, weight) in touched(model).items():
        count = len(before.get(shape, []))
        expected = [0] * count if initial is None else initial
        assert count == len(expected)
        for old, new, value in zip(before.get(shape, []), after.get(shape, []), expected):
            wanted = old.copy()
            wanted[index] = weight[index] if value is WEIGHT else np.float32(value)
            assert np.array_equal(new, wanted)
    assert all(np.array_equal(a, b) for a, b in zip(before.get((1,), []), after.get((1,), [])))
    assert all(np.array_equal(a, b) for a, b in zip(before.get((), []), after.get((), [])))


def test_the_table_has_every_optimizer():
    assert set(SLOTS) | REFUSED >= AVAILABLE - OTHERS


@pytest.mark.parametrize("name", sorted(set(SLOTS) & AVAILABLE - REFUSED))
def test_slots_go_back_to_their_own_initial_values(name):
    model = trained(getattr(K.optimizers, name)())
    before = slots(model.optimizer)
    revival = revive(model, (X, Y))
    assert revival.revived == 1
    check(model, before, SLOTS[name])
    revival.undo()
    assert {k: [a.tobytes() for a in v] for k, v in slots(model.optimizer).items()} == {
        k: [a.tobytes() for a in v] for k, v in before.items()
    }


@pytest.mark.once
def test_a_slot_zeroed_that_begins_elsewhere_is_found(monkeypatch):
    """The planted mistake."""
    model = trained(K.optimizers.Adagrad())
    before = slots(model.optimizer)
    values = optimizer_slots.value_of
    monkeypatch.setattr(optimizer_slots, "value_of", lambda variable: np.zeros_like(values(variable)))
    revive(model, (X, Y))
    with pytest.raises(AssertionError):
        check(model, before, SLOTS["Adagrad"])


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_momentum(options):
    model = trained(K.optimizers.SGD(0.01, **options))
    before = slots(model.optimizer)
    revive(model, (X, Y))
    check(model, before, [0])


@pytest.mark.skipif(LEGACY or KERAS < (3, 4), reason="Keras accumulates gradients from 3.4 on")
def test_accumulated_gradients():
    model = trained(K.optimizers.SGD(0.01, momentum=0.9, gradient_accumulation_steps=3))
    before = slots(model.optimizer)
    revive(model, (X, Y))
    check(model, before, [0, 0])


def test_an_average_follows_the_new_weights_so_that_the_end_of_a_fit_keeps_the_cure():
    model = trained(K.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9))
    model.train_on_batch(X, Y)  # unlike `fit`, it does not end with the averages in place of the weights
    revive(model, (X, Y))
    revived = touched(model)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    for shape, (index, weight) in touched(model).items():
        assert np.array_equal(weight[index], revived[shape][1][index])
    assert not np.array_equal(touched(model)[(3, 4)][1], revived[(3, 4)][1])  # the averages of the others came


def test_the_optimizer_inside_a_loss_scale_optimizer():
    inner = K.optimizers.Adam(0.01)
    wrapped = getattr(K.mixed_precision, "LossScaleOptimizer", None) or K.optimizers.LossScaleOptimizer
    model = trained(wrapped(inner))
    before = slots(inner)
    revive(model, (X, Y))
    check(model, before, [0, 0])


@pytest.mark.parametrize("schedule", [K.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9), OwnSchedule(0.01)])
def test_a_schedule_of_the_rate(schedule):
    model = trained(K.optimizers.Adam(schedule))
    before = slots(model.optimizer)
    revive(model, (X, Y))
    check(model, before, [0, 0])


class Own(K.optimizers.SGD):
    """An optimizer of the user's, whose configuration cannot make another one."""

    def __init__(self, strength, **more):
        super().__init__(0.1, **more)


def several():
    return K.optimizers.MultiOptimizer(K.optimizers.OptimizerMap(K.optimizers.Adam(0.01)))


NOT_KNOWN = {"Adafactor": lambda: K.optimizers.Adafactor(0.01), "Own": lambda: Own(1), "MultiOptimizer": several}


@pytest.mark.parametrize("make", [make for name, make in NOT_KNOWN.items() if name in AVAILABLE | {"Own"}])
def test_an_optimizer_whose_slots_are_not_known_is_refused_by_name_and_nothing_changes(make):
    model = trained(make())
    before = model.get_weights()
    with pytest.raises(
        ValueError, match=r"the optimizer (Adafactor|Own|MultiOptimizer) keeps state of which it is not known to which"
    ):
        revive(model, (X, Y))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_an_optimizer_that_was_built_for_other_weights_is_refused():
    model = trained(K.optimizers.Adam(0.01))
    model.layers[1].trainable = False
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"was built for other weights than the 2 that the model trains now"):
        optimizer_slots.find_slots(model)
    assert revive(model, (X, Y)).revived == 0  # its next layer is frozen
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_a_model_without_an_optimizer_or_before_its_first_step():
    for optimizer in (None, K.optimizers.Adam()):
        model = K.Sequential([K.Input((3,)), L.Dense(4, "relu", name="hidden"), L.Dense(1)])
        if optimizer is not None:
            model.compile(optimizer, "mse")
        model.layers[0].bias.assign([0.0, -40.0, 0.0, 0.0])
        assert revive(model, X).revived == 1
