"""Tests of ReLUs before max pooling: counting their gradients by windows equals the oracle's count by positions."""

import numpy as np
import oracle
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe
from relu_probe.counting import call_counts, max_pooling

K, L = tf.keras, tf.keras.layers
POOLINGS = {  # name -> (pool size, other arguments, whether the windows can be counted)
    "as usual": (2, {}, True),
    "with gaps": (2, {"strides": 3}, True),
    "padded": (4, {"padding": "same"}, True),
    "overlapping": (3, {"strides": 2}, False),
    "overlapping on one axis": ((2, 3), {"strides": 2}, False),
}


def model(size, arguments, rank=2):
    """Returns a model whose weights and activations are small integers, so that many windows have their maximum twice."""
    K.utils.set_random_seed(0)
    conv, pool = (L.Conv2D, L.MaxPooling2D) if rank == 2 else (L.Conv3D, L.MaxPooling3D)
    layers = [conv(4, 2, activation="relu", name="relu"), pool(size, **arguments)]
    layers += [conv(4, 1, activation="relu", name="next"), L.Flatten(), L.Dense(1)]
    net = sequential((9,) * rank + (2,), *layers)
    for layer in net.layers:
        shapes = [w.shape for w in layer.get_weights()]
        layer.set_weights([np.round(2 * np.random.default_rng(0).standard_normal(shape)) for shape in shapes])
    return net


def data(rank=2):
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal((11,) + (9,) * rank + (2,))).astype("float32")
    return x, rng.standard_normal((11, 1)).astype("float32")


def differences(make, x, y):
    """Returns the number of counts in which a fit with batches of 4 differs from the oracle."""
    probe = ReluProbe(strict=True)
    make().fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[probe])
    expected = oracle.train(make(), x, y, 4)
    assert 0 < probe.report["relu"].with_gradient.max() <= probe.report["relu"].active.max()
    return sum(
        np.count_nonzero(getattr(layer, name) != expected[key][name])
        for key, layer in probe.report.layers.items()
        for name in ("active", "with_gradient")
    )


@pytest.fixture
def windows_used(monkeypatch):
    """Returns a list that records, for each traced call of a layer, its windows; None if positions are counted instead."""
    found, windows_of = [], max_pooling.windows_of
    monkeypatch.setattr(call_counts, "windows_of", lambda call: found.append(windows_of(call)) or found[-1])
    return found


@pytest.mark.parametrize("name", POOLINGS)
def test_counting_windows_equals_the_oracle(name, windows_used):
    size, arguments, windows = POOLINGS[name]
    assert differences(lambda: model(size, arguments), *data()) == 0
    assert [one is not None for one in windows_used[:2]] == [windows, False]


def test_3d_pooling_is_counted_by_positions(windows_used):
    """With some of TensorFlow's kernels its gradient goes to every position that has the maximum."""
    assert differences(lambda: model(2, {}, rank=3), *data(rank=3)) == 0
    assert windows_used[0] is None


CONSTANT = {  # poolings whose windows are all ties: name -> (shape of a sample, pooling)
    "1D": ((8, 1), lambda: L.MaxPooling1D(2)),
    "2D": ((8, 8, 1), L.MaxPooling2D),
    "2D, padded": ((7, 7, 1), lambda: L.MaxPooling2D(4, padding="same")),
    "2D, other data format": ((8, 8, 1), lambda: L.MaxPooling2D((2, 1), data_format="channels_first")),
    "3D": ((4, 4, 4, 1), lambda: L.MaxPooling3D(2)),
    "global 1D": ((8, 1), L.GlobalMaxPooling1D),
    "global 2D": ((8, 8, 1), L.GlobalMaxPooling2D),
    "global 3D": ((4, 4, 4, 1), L.GlobalMaxPooling3D),
    "average": ((8, 8, 1), lambda: L.AveragePooling2D(2)),
    "with the argument": ((8, 8, 1), lambda: L.Lambda(lambda a: tf.nn.max_pool_with_argmax(a, 2, 2, "VALID")[0])),
    "fractional": ((8, 8, 1), lambda: L.Lambda(lambda a: tf.nn.fractional_max_pool(a, 2, seed=1)[0])),
    "two poolings": (
        (8, 8, 1),
        lambda: L.Lambda(lambda a: tf.nn.max_pool2d(tf.nn.max_pool2d(a, 2, 2, "SAME"), 2, 2, "SAME")),
    ),
    "overlap by another branch": (
        (8, 8, 1),
        lambda: L.Lambda(lambda a: tf.nn.max_pool2d(a, 2, 2, "SAME") + a[:, ::2, ::2]),
    ),
}


def differences_of_ties(name):
    """Returns `differences` on data whose windows are constant, of several values."""
    shape, pooling = CONSTANT[name]

    def make():
        K.utils.set_random_seed(0)
        conv = {2: L.Conv1D, 3: L.Conv2D, 4: L.Conv3D}[len(shape)]
        relu = conv(4, 1, activation="relu", kernel_initializer="ones", bias_initializer="ones", name="relu")
        return sequential(shape, relu, pooling(), L.Flatten(), L.Dense(1, dtype="float32"))

    x = np.zeros((3, *shape), "f")
    x[1] = 2
    x[2].flat[::3] = 1
    return differences(make, x, np.full((3, 1), 9.0, "f"))


@pytest.mark.parametrize("name", list(CONSTANT))
def test_ties_on_a_constant_background(name):
    """Every gradient is counted where TensorFlow puts it, and nowhere else."""
    assert differences_of_ties(name) == 0


@pytest.mark.parametrize("policy", ["float64", "mixed_bfloat16"], indirect=True)
def test_ties_in_other_types(policy):
    assert differences_of_ties("2D") == 0


@pytest.mark.parametrize("mistake", [False, True], ids=["correct", "planted mistake"])
def test_positions_are_counted_instead_of_windows_if_there_are_nan(mistake, monkeypatch):
    """The gradients of the windows are replaced by zeros, so that only counting positions finds any gradient.

    The planted mistake uses a NaN test that is always False. `Rescaling` stands before the ReLU because a ReLU that is fused
    with the convolution turns NaN into 0.
    """

    def make():
        K.utils.set_random_seed(0)
        layers = [L.Conv2D(4, 2), L.Rescaling(2.0), L.ReLU(name="relu"), L.MaxPooling2D(), L.Flatten(), L.Dense(1)]
        return sequential((9, 9, 2), *layers)

    def without_gradient(call, windows_of=max_pooling.windows_of):
        windows = windows_of(call)
        return windows._replace(gradients=tuple(map(tf.zeros_like, windows.gradients)))

    x, y = data()
    x[1, 4, 4, 0], x[2, 1, 7, 1] = np.nan, np.nan
    monkeypatch.setattr(call_counts, "windows_of", without_gradient)
    if mistake:
        monkeypatch.setattr(call_counts, "may_have_nan", lambda values: tf.constant(False))
        with pytest.raises(AssertionError):  # no gradient is counted at all
            differences(make, x[:4], y[:4])
    else:
        assert differences(make, x[:4], y[:4]) == 0


@pytest.mark.parametrize("where", ["inputs", "gradients"])
def test_infinite_inputs_and_gradients(where, windows_used):
    x, y = data()
    (x if where == "inputs" else y)[9] = np.inf
    assert differences(lambda: model(2, {}), x, y) == 0
    assert windows_used[0] is not None


@tf.custom_gradient
def pool_with_custom_gradient(a):
    """Max pooling with a custom gradient, which goes to the smallest value of each window."""
    other, window = 9 - a, {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "VALID"}

    def backward(gradient):
        pooled = tf.nn.max_pool2d(other, 2, 2, "VALID")
        return tf.raw_ops.MaxPoolGrad(orig_input=other, orig_output=pooled, grad=gradient, **window)

    return tf.nn.max_pool2d(a, 2, 2, "VALID"), backward


@pytest.mark.parametrize("obstacle", ["a second branch", "a threshold", "ReLU6", "a custom gradient"])
def test_windows_are_counted_only_if_all_gradients_pass_through_them(obstacle, windows_used):
    def make():
        K.utils.set_random_seed(0)
        x = K.Input((9, 9, 2))
        a = L.Conv2D(4, 2, activation="relu6" if obstacle == "ReLU6" else "relu", name="relu")(x)
        pool = L.Lambda(pool_with_custom_gradient) if obstacle == "a custom gradient" else L.MaxPooling2D()
        pooled = pool(L.ReLU(threshold=0.5, name="second")(a) if obstacle == "a threshold" else a)
        outputs = [L.Flatten()(pooled), *([L.Flatten()(a)] if obstacle == "a second branch" else [])]
        net = K.Model(x, L.Dense(1)(L.Concatenate()(outputs) if len(outputs) > 1 else outputs[0]))
        net.compile(K.optimizers.SGD(0.0), "mse")
        return net

    assert differences(make, *data()) == 0
    assert None in windows_used
