"""Faults that end a fit (Ctrl-C, an exception) reach the user and leave no probe behind, and the next fit is right."""

import harm
import pytest
import tensorflow as tf
from harm import K, L
from models import sequential

from relu_probe import ReluProbe


class Fault:
    """Raises an exception at one place in a fit while it is `active`: from the second call on, in a graph at the first trace."""

    def __init__(self, place, kind):
        self.place, self.kind, self.active, self.seen = place, kind, True, 0

    def hit(self, place):
        self.seen += self.active and place == self.place
        if self.active and place == self.place and (self.seen > 1 or place.startswith("traced")):
            raise self.kind("planted")

    def hooks(self, side):
        hit = self.hit
        return K.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: hit(f"epoch begin {side}"),
            on_epoch_end=lambda epoch, logs: hit(f"epoch end {side}"),
            on_train_batch_begin=lambda batch, logs: hit(f"batch begin {side}"),
            on_train_batch_end=lambda batch, logs: hit(f"batch end {side}"),
        )


def faulty_net(fault, **options):
    class Net(K.Sequential):
        def train_step(self, data):
            fault.hit("traced step")
            fault.hit("eager step")
            return super().train_step(data)

    def loss(y, predicted):
        fault.hit("traced loss")
        return tf.reduce_mean((y - predicted) ** 2)

    K.utils.set_random_seed(1)
    model = Net([K.Input((4,)), L.Dense(6, "relu", name="hidden"), L.Dense(1)])
    model.compile(K.optimizers.Adam(0.01), loss, **options)
    model.optimizer.build(model.trainable_variables)  # else Keras cannot reuse a function whose first trace failed
    return model


def three_fits(place, kind, probes):
    """The state after a fit that the fault ends, then after a fit with and a fit without a probe."""
    fault = Fault(place, kind)
    model = faulty_net(fault, run_eagerly=place == "eager step")
    with pytest.raises(kind, match="planted"):
        harm.fitted(model, [fault.hooks("before"), *probes, fault.hooks("after")])
    assert harm.clean(model)
    fault.active = False
    left = [harm.state(model), harm.fitted(model, probes), harm.fitted(model, [])]
    assert harm.clean(model)
    return left


ENDS = [("batch begin before", KeyboardInterrupt), ("batch begin after", SystemExit), ("batch end after", KeyError)]
ENDS += [("batch begin after", KeyboardInterrupt), ("epoch begin after", KeyError), ("epoch end before", SystemExit)]
ENDS += [("traced step", KeyboardInterrupt), ("eager step", KeyboardInterrupt), ("traced step", ValueError)]
ENDS += [("traced loss", ValueError)]


@pytest.mark.parametrize(("place", "kind"), ENDS)
@pytest.mark.filterwarnings("ignore:relu_probe. measuring stopped:UserWarning")
def test_an_exception_that_ends_a_fit_reaches_the_user_and_leaves_nothing_behind(place, kind):
    probe = ReluProbe()
    plain, watched = three_fits(place, kind, []), three_fits(place, kind, [probe])
    assert all(map(harm.same, plain, watched))
    assert [report.samples for report in probe.reports] == [24, 24]
    assert probe.report.incomplete == ""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_during_a_measurement_is_not_swallowed(kind):
    class Interrupted(L.Layer):
        def call(self, x, training=None):
            if active and not training:
                raise kind("planted")
            return x

    active = []
    model = sequential(4, L.Dense(6, "relu"), Interrupted(), L.Dense(1), optimizer="sgd", run_eagerly=True)
    active.append(True)
    with pytest.raises(kind, match="planted"):
        harm.fitted(model, [ReluProbe(data=harm.data())])
    assert harm.clean(model)
