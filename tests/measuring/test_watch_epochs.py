"""`watch` in a loop over epochs: its reports, dates and event file."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from event_files import points
from models import sequential

from relu_probe import ReluProbe, diagnose, measure, watch

K, L = tf.keras, tf.keras.layers
X, Y = np.ones((8, 2), "f"), np.ones((8, 1), "f")
EPOCHS, CALLS = 4, 3  # a call is a step


def net():
    return sequential(2, L.Dense(4, "relu", name="hidden"), L.Dense(1), optimizer=K.optimizers.SGD(0.0))


def set_dead(model, dead):
    """Sets the number of dead neurons."""
    bias = np.where(np.arange(4) < dead, -100.0, 1.0)
    model.get_layer("hidden").set_weights([np.ones((2, 4)), bias])


def on_batch(model):
    return lambda: model.train_on_batch(X, Y)


def own_step(model, **options):
    @tf.function(**options)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(X, training=True) - Y) ** 2)
        model.optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_weights), model.trainable_weights))

    return step


def eager_step(model):
    return own_step(model).python_function


def jitted_step(model):
    return own_step(model, jit_compile=True)


def loop(w, model, step, epochs=range(EPOCHS)):
    """One neuron is dead from the start; a second dies before the second call of epoch 1, a third before epoch 3."""
    for epoch in epochs:
        for call in range(CALLS):
            set_dead(model, 1 + (epoch * CALLS + call >= CALLS + 1) + (epoch >= 3))
            step()
        w.end_epoch(epoch)


@pytest.mark.parametrize("make", [on_batch, own_step, eager_step, jitted_step])
def test_each_epoch_has_a_report_and_deaths_are_dated(make):
    model = net()
    step = make(model)
    for _ in range(2):  # the second block begins again from zero
        with watch(model) as w:
            loop(w, model, step)
    assert [(report.epoch, report.samples, report.source) for report in w.reports] == [
        (epoch, CALLS * len(X), "watch") for epoch in range(EPOCHS)
    ]
    assert [report["hidden"].dead.sum() for report in w.reports] == [1, 1, 2, 3]
    assert [report.last_step for report in w.reports] == [2, 5, 8, 11]
    assert w.reports[-1]["hidden"].last_active.tolist() == [-1, CALLS, 3 * CALLS - 1, EPOCHS * CALLS - 1]
    hidden = w.history["hidden"]
    assert hidden.dead_since.tolist() == [0, 1, 3, -1]
    assert hidden.never_active.tolist() == [True, False, False, False]
    assert w.report() is w.reports[-1]  # after the block, in which no call followed


def test_the_counts_of_an_epoch_are_those_of_the_data():
    model = net()
    set_dead(model, 1)
    with watch(model) as w:
        w_report = None
        model(X)
        before = w.report()
        model(X)
        w_report = w.end_epoch(7)
        model(X)
        assert w.report(epoch=8).samples == len(X)
        assert w.report(reset=True).epoch is None
        with pytest.raises(RuntimeError, match="watch counted no call"):
            w.report()
    expected = measure(model, X)
    assert before["hidden"].active.tolist() == expected["hidden"].active.tolist()
    assert w_report["hidden"].active.tolist() == (2 * expected["hidden"].active).tolist()
    np.testing.assert_allclose(w_report["hidden"].activation_sum, 2 * expected["hidden"].activation_sum)
    assert "dormant" in w_report.table(tau=0.1)
    assert "1 25.0%" in w_report.table(tau=0.1)


def test_after_the_block_nothing_can_be_restarted():
    model = net()
    with watch(model) as w:
        model(X)
    for restart in (lambda: w.end_epoch(0), lambda: w.report(reset=True)):
        with pytest.raises(RuntimeError, match="the block of this watch has ended; expected end_epoch"):
            restart()
    assert w.report().samples == len(X)


def test_diagnose_knows_from_a_watch_when_neurons_died():
    model = net()
    with watch(model) as w:
        loop(w, model, on_batch(model))
    found = diagnose(model, (X, Y), probe=w)
    assert found.history["hidden"].dead_since.tolist() == [0, 1, 3, -1]
    assert found.loss_jumps == ()
    assert "epoch 1" in str(w.history)


def test_tensorboard_gets_what_a_probe_writes(tmp_path):
    model = net()
    with watch(model, log_dir=tmp_path, name="loop") as w:
        loop(w, model, on_batch(model))
    found = points(tmp_path / "loop")
    for tag in ("dead_fraction", "dead_fraction/hidden"):
        assert [(step, float(value)) for step, value in found[tag]] == [(0, 0.25), (1, 0.25), (2, 0.5), (3, 0.75)]
    assert [step for step, _ in found["a_overview/dead"]] == [0, 1, 3]
    text = found["report"][-1][1].item().decode()
    assert "3 of 4 dead" in text
    assert "epoch 1 &#40;step 3&#41;" in text

    model.fit(X, Y, epochs=2, verbose=0, callbacks=[ReluProbe(tmp_path, name="probe")])
    assert set(points(tmp_path / "probe")) == set(found)  # the tags of both are the same
    assert len(list((tmp_path / "loop").iterdir())) == 1


def test_a_loop_that_was_interrupted_is_continued(tmp_path):
    model = net()

    def interrupted():
        with watch(model, log_dir=tmp_path) as w:
            loop(w, model, on_batch(model))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with watch(model, log_dir=tmp_path) as w:
        for epoch in (2, 3, 4):
            model.train_on_batch(X, Y)
            w.end_epoch(epoch)
    assert [step for step, _ in points(tmp_path / "relu_probe")["dead_fraction"]] == [0, 1, 2, 3, 4]


def test_a_full_disk_does_not_end_the_loop(tmp_path):
    model, run = net(), tmp_path / "relu_probe"
    with watch(model, log_dir=tmp_path) as w:
        loop(w, model, on_batch(model), epochs=[0])
        shutil.rmtree(run)
        run.touch()  # a file, where the directory was
        with pytest.warns(UserWarning, match="logging stopped"):
            loop(w, model, on_batch(model), epochs=[1, 2])
    assert len(w.reports) == 3
    assert "logging stopped" in w.reports[-1].incomplete


@pytest.mark.parametrize(("options", "error"), [({"log_dir": 3}, TypeError), ({"name": "a/b"}, ValueError)])
def test_wrong_arguments_are_refused_at_once(options, error):
    with pytest.raises(error, match=r"(log_dir|name) is .*; expected"), watch(net(), **options):
        pass


@pytest.mark.parametrize("epoch", [-1, 1.5, None, "a", True, 3, 2])
def test_an_epoch_that_does_not_rise_is_refused(epoch):
    model = net()
    with watch(model) as w:
        on_batch(model)()
        w.end_epoch(3)
        on_batch(model)()
        with pytest.raises(
            ValueError, match=rf"epoch is {epoch!r}; expected a whole number of at least 4, after epoch 3\."
        ):
            w.end_epoch(epoch)
        assert w.end_epoch(4).samples == len(X)  # nothing was lost


def test_an_epoch_cannot_end_after_the_block():
    model = net()
    with watch(model) as w:
        on_batch(model)()
        w.end_epoch(0)
    with pytest.raises(RuntimeError, match="the block of this watch has ended"):
        w.end_epoch(1)
    assert [each.epoch for each in w.reports] == [0]
