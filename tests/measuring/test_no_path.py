"""A ReLU without a path from the loss has zero gradient, in a fit, on given data and in `measure`; None is another thing."""

import pytest
import tensorflow as tf
from models import integer_data

from relu_probe import ReluProbe, measure, watch

pytestmark = pytest.mark.filterwarnings(
    "ignore:Gradients do not exist"
)  # Keras's own words for a trained layer without a path
K, L = tf.keras, tf.keras.layers
DATA = integer_data(12)
ALIVE = {"kernel_initializer": "zeros", "bias_initializer": "ones"}


class StopGradient(L.Layer):
    def call(self, x):
        return tf.stop_gradient(x)


class Encoder(K.Model):
    """A subclassed model: what comes before its ReLU is not visible."""

    def __init__(self):
        super().__init__()
        self.first, self.cut, self.head = (
            L.Dense(3, **ALIVE),
            L.ReLU(name="cut"),
            L.Dense(2, "relu", name="free", **ALIVE),
        )
        self.out = L.Dense(1)

    def call(self, x):
        return self.out(self.head(tf.stop_gradient(self.cut(self.first(x)))))


def behind_stop_gradient():
    x = K.Input((6,))
    y = StopGradient()(L.Dense(3, "relu", name="cut", **ALIVE)(x))
    return K.Model(x, L.Dense(1)(L.Dense(2, "relu", name="free", **ALIVE)(y))), "mse", DATA[1]


def output_without_loss():
    x = K.Input((6,))
    cut, free = (L.Dense(3, "relu", name=name, **ALIVE)(x) for name in ("cut", "free"))
    return (
        K.Model(x, {"p": L.Dense(1, name="p")(cut), "q": L.Dense(1, name="q")(free)}),
        {"p": None, "q": "mse"},
        {"p": DATA[1], "q": DATA[1]},
    )


def subclassed():
    return Encoder(), "mse", DATA[1]


CASES = (behind_stop_gradient, output_without_loss, subclassed)


def compiled(case):
    model, loss, y = case()
    model(DATA[0])
    model.compile(K.optimizers.SGD(0.0), loss)
    return model, (DATA[0], y)


@pytest.mark.parametrize("case", CASES)
def test_no_path_from_the_loss_is_zero_gradient(case):
    model, data = compiled(case)
    trained, given = ReluProbe(strict=True), ReluProbe(data=data, strict=True, name="given")
    model.fit(*data, verbose=0, callbacks=[trained, given])
    for report in (measure(model, data), trained.report, given.report):
        assert report["cut"].with_gradient.tolist() == [0, 0, 0]
        assert report["cut"].blocked.all()
        assert not report["cut"].frozen
        assert report["free"].with_gradient is not None


@pytest.mark.parametrize("case", CASES)
def test_a_frozen_layer_has_none_in_a_fit(case):
    model, (x, y) = compiled(case)
    first = model.first if case is subclassed else model.get_layer("cut")
    first.trainable = False
    model.compile(K.optimizers.SGD(0.0), model.loss)
    probe = ReluProbe(strict=True)
    model.fit(x, y, verbose=0, callbacks=[probe])
    assert (probe.report["cut"].with_gradient, probe.report["cut"].frozen) == (None, True)
    assert probe.report["free"].with_gradient is not None


def test_a_watch_tells_once_a_backward_pass_has_reached_any_layer():
    model, (x, y) = compiled(behind_stop_gradient)
    with watch(model) as w:
        model(x)
    assert [layer.with_gradient for layer in w.report().layers.values()] == [None, None]
    with watch(model) as w:
        model.train_on_batch(x, y)
    assert w.report()["cut"].with_gradient.tolist() == [0, 0, 0]


def test_without_labels_or_loss_there_is_no_gradient_to_speak_of():
    model, (x, _) = compiled(behind_stop_gradient)
    assert measure(model, x)["cut"].with_gradient is None
    model, _, y = behind_stop_gradient()
    assert measure(model, (DATA[0], y))["cut"].with_gradient is None
