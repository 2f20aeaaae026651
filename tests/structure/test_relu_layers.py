"""Which layers are counted: a ReLU written in any way, and no activation that cannot die."""

import numpy as np
import pytest
import tensorflow as tf
from keras_version import KERAS, LEGACY
from models import sequential

from relu_probe import ReluProbe, measure, watch
from relu_probe.structure.relu_function import is_relu
from relu_probe.structure.relu_layers import find_relus

K, L = tf.keras, tf.keras.layers


def square(x):
    return tf.square(tf.nn.relu(x))


def by_hand(x):
    return tf.where(x > 0, x, tf.zeros_like(x))


WRITTEN = {
    '"relu"': "relu",
    '"relu6"': "relu6",
    "tf.nn.relu": tf.nn.relu,
    "tf.nn.relu6": tf.nn.relu6,
    "keras.activations.relu": K.activations.relu,
    "ReLU()": L.ReLU(),
    "ReLU(6)": L.ReLU(6.0),
    "ReLU(max_value, threshold)": L.ReLU(max_value=2.0, threshold=0.5),
    "a lambda": lambda x: tf.maximum(x, 0.0),
    "max_value": lambda x: K.activations.relu(x, max_value=3.0),
    "threshold": lambda x: K.activations.relu(x, threshold=1.0),
    "squared": square,
    "tf.where": by_hand,
    "a low bound": lambda x: K.activations.relu(x, max_value=1e-4),
    "a bound just above the threshold": lambda x: K.activations.relu(x, max_value=2.0, threshold=1.75),
    **({} if LEGACY else {"keras.ops.relu": K.ops.relu, "keras.ops.relu6": K.ops.relu6}),
}
CEILINGS = {'"relu6"': 6, "tf.nn.relu6": 6, "ReLU(6)": 6, "ReLU(max_value, threshold)": 2, "max_value": 3}
CEILINGS |= {"keras.ops.relu6": 6, "a low bound": np.float32(1e-4), "a bound just above the threshold": 2}

CANNOT_DIE = {
    **{name: name for name in ("elu", "selu", "gelu", "sigmoid", "hard_sigmoid", "tanh", "softmax", "softplus")},
    **{name: name for name in ("softsign", "linear", "exponential", "swish")},
    **({} if LEGACY else {name: name for name in ("silu", "leaky_relu", "mish", "hard_silu", "log_softmax")}),
    "tf.nn.leaky_relu": tf.nn.leaky_relu,
    "tf.nn.silu": tf.nn.silu,
    "negative_slope": lambda x: K.activations.relu(x, **{"alpha" if LEGACY else "negative_slope": 0.01}),
    "a dead function": tf.zeros_like,  # never positive: no ReLU either
    "abs": tf.abs,
    "a step": lambda x: tf.cast(x > 0, tf.float32),
    "a step at 1.5": lambda x: 2 * tf.cast(x > 1.5, tf.float32),
    "a staircase": lambda x: tf.math.ceil(tf.nn.relu(x)),
    "a ReLU without gradient": lambda x: tf.stop_gradient(tf.nn.relu(x)),
}
LAYERS_THAT_CANNOT_DIE = {
    "LeakyReLU": L.LeakyReLU,
    "PReLU": L.PReLU,
    "ELU": L.ELU,
    "Softmax": L.Softmax,
    "ReLU(negative_slope)": lambda: L.ReLU(negative_slope=0.1),
    "Activation(tanh)": lambda: L.Activation("tanh"),
    "Dropout": lambda: L.Dropout(0.5),
    "Lambda": lambda: L.Lambda(lambda x: x * 2),
}


def model_of(*layers, units=3):
    return K.Sequential([K.Input((4,)), *layers, L.Dense(1, name="out")], name="net")


def keys(model):
    try:
        return [relu.key for relu in find_relus(model)]
    except ValueError:
        return []


@pytest.mark.parametrize("name", list(WRITTEN))
def test_every_way_to_write_a_relu_is_found(name):
    function = WRITTEN[name]
    (hidden,) = find_relus(model_of(L.Dense(3, function, name="hidden")))
    assert hidden.key == "hidden"
    assert hidden.ceiling == CEILINGS.get(name)
    assert keys(model_of(L.Dense(3), L.Activation(function, name="act"))) == ["act"]
    assert keys(model_of(L.Dense(3), L.Lambda(K.activations.get(function), name="lam", output_shape=(3,)))) == ["lam"]


@pytest.mark.parametrize(
    "layer", [L.ReLU, lambda name: L.ReLU(6.0, name=name), lambda name: L.ReLU(threshold=1, name=name)]
)
def test_a_relu_layer_is_found(layer):
    assert keys(model_of(L.Dense(3), layer(name="act"))) == ["act"]


@pytest.mark.parametrize("name", list(CANNOT_DIE))
def test_what_cannot_die_is_not_counted(name):
    function = CANNOT_DIE[name]
    assert not is_relu(K.activations.get(function))
    assert keys(model_of(L.Dense(3, function, name="hidden"))) == []


@pytest.mark.parametrize("name", list(LAYERS_THAT_CANNOT_DIE))
def test_layers_that_cannot_die_are_not_counted(name):
    assert keys(model_of(L.Dense(3, name="hidden"), LAYERS_THAT_CANNOT_DIE[name]())) == []


def test_prelu_is_not_counted_as_an_activation_either():
    """Its alpha starts at zero, so that at first it computes what a ReLU computes."""
    model = model_of(L.Dense(3, L.PReLU(), name="hidden"))
    model.build((None, 4))
    assert keys(model) == []


def test_a_function_that_cannot_be_evaluated_is_no_relu():
    assert not is_relu(lambda x: 1 / 0)
    assert not is_relu(lambda x: tf.nn.relu(x)[:, :0])
    assert not is_relu(lambda x: tf.nn.relu(tf.reshape(x, [2, 2])))


def test_the_test_of_recognition_can_fail():
    """The planted mistake: a softmax over a vector of points, not over each point alone, looks like a ReLU."""
    points = tf.constant([[-1e4, -1.0, -1e-3, 1e6]])
    together = np.asarray(tf.nn.softmax(points))[0]
    assert (together[:3] == 0).all()
    assert together[3] > 0
    assert not is_relu(K.activations.softmax)


# --- a ReLU that cannot be seen ---------------------------------------------------------------------------------------


class Plain(K.Model):
    """A ReLU as a plain function inside `call`."""

    def __init__(self):
        super().__init__(name="plain")
        self.hidden = L.Dense(3, name="hidden")
        self.out = L.Dense(1, name="out")

    def call(self, x):
        return self.out(tf.nn.relu(self.hidden(x)))


def test_a_relu_used_as_a_plain_function_is_counted_in_traced_steps_and_named_elsewhere():
    model, x, y = Plain(), np.ones((4, 4), "f"), np.ones((4, 1), "f")
    model.compile("sgd", "mse")
    model(x)
    model.fit(x, y, verbose=0, callbacks=[probe := ReluProbe()])
    for report in (measure(model, x), probe.report):
        assert (list(report), report.samples, dict(report.unseen)) == (["relu"], 4, {})
    with watch(model) as w:
        model(x)
    with pytest.warns(UserWarning, match=r"can be counted: functions \(ReLUs that are written"):
        assert w.report().samples == 0


class NoRelu(Plain):
    def call(self, x):
        return self.out(tf.tanh(self.hidden(x)))


def test_a_subclassed_model_without_a_relu_is_refused_once_it_was_run():
    model, x, y = NoRelu(), np.ones((4, 4), "f"), np.ones((4, 1), "f")
    model.compile("sgd", "mse")
    model(x)
    text = r"no ReLU found in model 'plain'. looked at hidden \(Dense, linear\), out \(Dense, linear\)"
    with pytest.raises(ValueError, match=text):
        measure(model, x)
    with pytest.warns(UserWarning, match=text):
        model.fit(x, y, verbose=0, callbacks=[ReluProbe()])


def test_a_custom_layer_with_an_activation_may_end_in_anything():
    class Mixed(L.Layer):
        def __init__(self):
            super().__init__(name="mixed")
            self.activation = K.activations.relu

        def call(self, x):
            return self.activation(x) - 1.0

    assert keys(model_of(Mixed())) == []


class Named(L.Dense):
    """A subclass that keeps Keras's own `call`."""

    def build(self, shape):
        super().build(shape)


class Negated(L.Dense):
    def call(self, x):
        return -super().call(x)


class Rectified(L.Activation):
    """An activation layer with a `call` of its own, which is never called to find out what it computes."""

    def call(self, x):
        return tf.nn.relu(x)


def test_a_subclass_of_a_keras_layer_is_counted_if_its_last_operation_is_known():
    layers = [Named(3, "relu", name="named"), Negated(3, "relu", name="negated"), L.Dense(2)]
    assert keys(model_of(*layers, Rectified("linear", name="rectified"))) == ["named"]


def test_rnn_cells_are_no_relu_layers():
    layers = [L.LSTM(3, activation="relu", return_sequences=True), L.RNN(L.GRUCell(3, activation="relu"))]
    model = K.Sequential([K.Input((5, 4)), *layers, L.Dense(2, "relu", name="hidden"), L.Dense(1)])
    assert keys(model) == ["hidden"]


# --- no neuron is counted twice ---------------------------------------------------------------------------------------


def test_a_relu_behind_a_relu_is_counted_once():
    assert keys(model_of(L.Dense(3, "relu", name="a"), L.ReLU(name="again"))) == ["a"]
    assert keys(model_of(L.Dense(3, L.ReLU(name="own"), name="a"))) == ["a"]
    assert keys(model_of(L.Dense(3, "relu", name="a"), L.BatchNormalization(), L.ReLU(name="act"))) == ["a", "act"]
    x = K.Input((4,))
    hidden = L.Dense(3, "relu", name="a")(x)
    assert keys(K.Model(x, L.Dense(1)(L.Activation("relu", name="again")(hidden)))) == ["a"]
    assert keys(K.Model(x, L.Dense(1)(L.Dense(3, "relu", name="b")(hidden)))) == ["a", "b"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("relu", lambda: L.ReLU(6.0, name="b"), ["a", "b"]),
        ("relu6", lambda: L.ReLU(6.0, name="b"), ["a"]),
        ("relu6", lambda: L.ReLU(7.0, name="b"), ["a"]),
        ("relu6", lambda: L.ReLU(5.0, name="b"), ["a", "b"]),
        ("relu6", lambda: L.ReLU(name="b"), ["a"]),
        ("relu", lambda: L.ReLU(threshold=1000, name="b"), ["a", "b"]),
        ("relu", lambda: L.ReLU(threshold=1e-3, name="b"), ["a", "b"]),
        ("relu", lambda: L.Activation(square, name="b"), ["a", "b"]),
        (square, lambda: L.Activation("relu", name="b"), ["a"]),
    ],
)
def test_a_relu_behind_a_relu_is_left_out_only_if_it_changes_nothing(first, second, expected):
    assert keys(model_of(L.Dense(3, first, name="a"), second())) == expected


def test_a_relu_behind_two_relus_is_left_out_only_if_it_changes_neither():
    x, shared = K.Input((4,)), L.ReLU(6.0, name="shared")
    parts = [shared(L.Dense(3, kind, name=kind)(x)) for kind in ("relu", "relu6")]
    assert keys(K.Model(x, L.Dense(1)(L.Add()(parts)))) == ["relu", "relu6", "shared"]


# --- names ------------------------------------------------------------------------------------------------------------


def nested(name, inner="hidden"):
    return K.Sequential([K.Input((4,)), L.Dense(4, "relu", name=inner)], name=name)


def test_a_key_is_the_layers_name_where_unique_else_its_path():
    assert keys(model_of(nested("left", "a"), nested("right", "b"))) == ["a", "b"]
    assert keys(model_of(nested("left"), nested("right"))) == ["left/hidden", "right/hidden"]
    deep = K.Sequential([K.Input((4,)), nested("inmost"), L.Dense(4, "relu", name="other")], name="mid")
    assert keys(model_of(deep, L.Dense(4, "relu", name="hidden"))) == ["mid/inmost/hidden", "other", "hidden"]


class Clashing(K.Model):
    def __init__(self, *names):
        super().__init__()
        self.parts = [L.Dense(4, "relu", name=name) for name in names]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("h", "h"), ["h", "h_1"]),
        (("h", "h", "h"), ["h", "h_1", "h_2"]),
        (("h", "h_1", "h"), ["h", "h_1", "h_2"]),
        (("h_1", "h", "h"), ["h_1", "h", "h_2"]),
    ],
)
def test_clashes_that_remain_get_numbers(names, expected):
    model = Clashing(*names)
    assert keys(model) == expected


def test_select_by_key_glob_and_object():
    model = model_of(nested("left"), nested("right"), L.Dense(4, "relu", name="last"))
    x = np.ones((2, 4), "f")
    inner = model.get_layer("right").layers[-1]
    for wanted, expected in (
        ("left/hidden", ["left/hidden"]),
        ("*/hidden", ["left/hidden", "right/hidden"]),
        (["last", "left/*"], ["left/hidden", "last"]),  # in the model's order
        (inner, ["right/hidden"]),
        ({"last"}, ["last"]),
        (("last", inner), ["right/hidden", "last"]),
    ):
        assert list(measure(model, x, layers=wanted).layers) == expected


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ("left", "layers='left' is a layer of the model but no ReLU that is counted; expected names, globs or layer "),
        ("*x", "layers='*x' matches no layer of the model; expected names, globs or layer "),
        (lambda model: model.layers[-1], "layers='out' is a layer of the model but no ReLU that is counted; expected "),
        (
            lambda model: L.Dense(2, name="alien"),
            "layers='alien' matches no layer of the model; expected names, globs ",
        ),
        (["last", 3], "layers=3 matches no layer of the model; expected names, globs or layer "),
        ([], "layers=[] asks for no layer; expected names, globs or layer "),
    ],
)
def test_what_is_no_counted_layer_is_an_error(wanted, text):
    model = model_of(nested("left"), nested("right"), L.Dense(4, "relu", name="last"))
    wanted = wanted(model) if callable(wanted) else wanted
    with pytest.raises(ValueError) as error:  # noqa: PT011  # compared word for word
        measure(model, np.ones((2, 4), "f"), layers=wanted)
    assert str(error.value).startswith(text)
    assert str(error.value).endswith("layer objects from left/hidden, right/hidden, last.")


# --- the axis of the neurons ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "axis"),
    [
        ([L.Conv2D(2, 1, activation="relu", data_format="channels_first")], 1),
        ([L.Conv2D(2, 1, activation="relu", data_format="channels_last")], -1),
        ([L.Conv2D(2, 1, data_format="channels_first"), L.ReLU()], 1),
        ([L.Conv2D(2, 1, data_format="channels_first"), L.BatchNormalization(axis=1), L.Dropout(0.1), L.ReLU()], 1),
        ([L.Conv2D(2, 1, data_format="channels_first"), L.MaxPooling2D(data_format="channels_first"), L.ReLU()], 1),
        ([L.Conv2D(2, 1, data_format="channels_last"), L.BatchNormalization(), L.ReLU()], -1),
        ([L.Conv2D(2, 1, data_format="channels_first"), L.Flatten(), L.Dense(3, "relu")], -1),
        ([L.Conv2D(2, 1, data_format="channels_first"), L.Flatten("channels_first"), L.ReLU()], -1),
        ([L.Conv2D(2, 1, data_format="channels_first"), L.Dense(3), L.ReLU()], -1),
        ([L.Conv2D(2, 1, data_format="channels_first"), L.Permute((2, 3, 1)), L.ReLU()], -1),
    ],
)
def test_channels_first_is_followed_from_the_layer_that_makes_it(layers, axis):
    layers = [type(layer).from_config(layer.get_config()) for layer in layers]  # fresh: parameters are shared by runs
    x = hidden = K.Input((3, 4, 4))
    for layer in layers:
        hidden = layer(hidden)
    (found,) = find_relus(K.Model(x, hidden))
    assert found.axis == axis


# --- layers inside a vectorized loop ----------------------------------------------------------------------------------

UNKNOWN_TIME = (
    "called inside tf.vectorized_map, as Keras 3's TimeDistributed does if the number of time steps is unknown: give the "
    "time axis a fixed length, or call the layer without TimeDistributed"
)


def sequences(lengths):
    """Batches of `n` samples with `n` time steps each; the graph does not know the number of steps."""
    rng = np.random.default_rng(0)
    signature = (tf.TensorSpec((None, None, 6)), tf.TensorSpec((None, 1)))
    made = [(rng.standard_normal((n, n, 6)).astype("f"), np.ones((n, 1), "f")) for n in lengths]
    return tf.data.Dataset.from_generator(lambda: iter(made), output_signature=signature).apply(
        tf.data.experimental.assert_cardinality(len(lengths))
    )


def over_time(**compile_args):
    wrapped = L.TimeDistributed(L.Dense(5, "relu", name="hidden"))
    return sequential((None, 6), wrapped, L.GlobalAveragePooling1D(), L.Dense(1), optimizer="sgd", **compile_args)


def test_time_distributed_over_a_number_of_steps_that_differs_between_batches():
    """In eager mode each batch shows its number of steps; tf_keras folds an unknown number into the batch."""
    model, probe = over_time(run_eagerly=not LEGACY), ReluProbe(strict=True)
    model.fit(sequences([3, 5]), shuffle=False, verbose=0, callbacks=[probe])
    for report in (probe.report, measure(model, sequences([3, 5]))):
        assert report["hidden"].positions == 3 * 3 + 5 * 5
        assert report["hidden"].samples == 3 + 5


@pytest.mark.skipif(LEGACY, reason="tf_keras folds the steps into the batch and is counted, see the test above")
def test_time_distributed_over_an_unknown_number_of_steps_is_refused():
    """Keras 3.15's own works only if the batch has as many samples as time steps; Keras 3.3's does not run at all."""
    model = over_time()
    if KERAS <= (3, 3):
        with pytest.raises(ValueError, match="Invalid dtype: NoneType"):
            model.fit(sequences([3, 3]), shuffle=False, verbose=0)
        return
    with pytest.raises(tf.errors.InvalidArgumentError, match="out of bounds"):
        over_time().fit(sequences([3]).map(lambda x, y: (x[:, :2], y)), shuffle=False, verbose=0)
    probe = ReluProbe()
    with pytest.warns(UserWarning, match=r"can be counted: hidden \(called inside"):
        model.fit(sequences([3, 3]), shuffle=False, verbose=0, callbacks=[probe])
    with pytest.warns(UserWarning, match=r"can be counted: hidden \(called inside"):
        measured = measure(model, sequences([3, 3]))
    assert measured.unseen == probe.report.unseen == {"hidden": UNKNOWN_TIME}
    with pytest.raises(ValueError, match=r"can be counted: hidden \(called inside"):
        model.fit(sequences([3, 3]), shuffle=False, verbose=0, callbacks=[ReluProbe(strict=True)])


class Late(L.Layer):
    def build(self, shape):
        self.inner = L.Dense(4, "relu", name="late")
        self.inner.build(shape)
        self.built = True

    def call(self, x):
        return self.inner(x)


class BuiltLate(K.Model):
    def __init__(self):
        super().__init__()
        self.early, self.block, self.out = L.Dense(4, "relu", name="early"), Late(), L.Dense(1)

    def call(self, x):
        return self.out(self.block(self.early(x)))


@pytest.mark.parametrize("measured", [False, True])
def test_layers_made_by_the_first_step_are_counted_from_the_next_epoch_on(measured):
    """The first report names the layers that it lacks, and the numbers of the steps continue.

    With `data=` the model is measured after the step, and no layer is missing.
    """
    x, y = np.ones((6, 3), "f"), np.ones((6, 1), "f")
    probe, model = ReluProbe(data=(x, y) if measured else None, strict=True), BuiltLate()
    other = ReluProbe(name="other", strict=True)
    model.early.bias_initializer = K.initializers.Constant(50.0)  # active to the last step
    model.compile(K.optimizers.SGD(0.0), "mse")
    model.fit(x, y, batch_size=2, epochs=3, verbose=0, callbacks=[probe, other])
    for shown in (other,) if measured else (probe, other):
        first, *rest = shown.reports
        assert list(first) == ["early"]
        assert first.incomplete.endswith("late not counted yet: made while the model was built, by its first step")
        assert all(len(list(report)) == 2 and not report.incomplete for report in rest)
        assert all(layer.samples == 6 for report in rest for layer in report.layers.values())
        assert rest[-1]["early"].last_active.max() == 8  # from 0
    if measured:
        assert all(len(list(report)) == 2 and not report.incomplete for report in probe.reports)
