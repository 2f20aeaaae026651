"""`ReluProbe(keep=N)` keeps the newest N reports; dates of deaths rest on all reports."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from event_files import events
from models import sequential
from pictures import life_picture

from relu_probe import ReluProbe, diagnose, history
from relu_probe.diagnosis.sick_layer import SickLayer
from relu_probe.report.loss_jumps import LARGEST, LossJump, LossJumpTracker

K, L = tf.keras, tf.keras.layers
X, Y = np.full((8, 1), 0.5, "f"), np.ones((8, 1), "f")
# Neurons: born dead; dies in epoch 1; born dead, revives in 1, dies in 3; dies in 6; alive; dies in 1, revives in 5.
ACTIVE = [[0, 1, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 0]]
ACTIVE += [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]]


class SetActive(K.callbacks.Callback):
    """Sets the biases at the beginning of an epoch, so that exactly the neurons in `ACTIVE` are active."""

    def on_epoch_begin(self, epoch, logs=None):
        bias = np.where(ACTIVE[epoch % len(ACTIVE)], 0.0, -1.0).astype("f")
        self.model.get_layer("hidden").set_weights([np.ones((1, 6), "f"), bias])


def fitted(*probes):
    model = sequential(1, L.Dense(6, "relu", name="hidden"), L.Dense(1))
    model.fit(X, Y, epochs=len(ACTIVE), batch_size=4, verbose=0, callbacks=[*probes, SetActive()])
    return model


def when(model, probe):
    text = " ".join(str(diagnose(model, (X, Y), probe=probe)).split())
    return text[text.index("hidden: ") : text.index("1. ")]


@pytest.mark.parametrize("keep", [1, 2, 5, 7, 100])
def test_the_newest_reports_are_kept_and_the_dates_rest_on_all(keep):
    everything, probe = ReluProbe(), ReluProbe(keep=keep, name="kept")
    model = fitted(everything, probe)
    assert probe.reports == everything.reports[-keep:]
    assert probe.report is probe.reports[-1]
    assert [r["hidden"].died for r in probe.reports] == [r["hidden"].died for r in everything.reports[-keep:]]
    found, expected = probe.history["hidden"], history(everything.reports)["hidden"]
    for name in ("born_dead", "never_active", "ever_active", "dead_since", "found_dead", "last_active"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    for name in ("epochs", "died", "revived"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name)[-keep:], name)
    assert probe.loss_jumps == everything.loss_jumps
    assert when(model, probe) == when(model, everything)
    deaths = "; ".join(
        f"1 died after training step {step}, so that it is dead in all of epoch {epoch}"
        for step, epoch in ((1, 1), (5, 3), (11, 6))
    )
    assert when(model, probe) == f"hidden: 1 never active in this fit; {deaths}. "


def test_the_plain_history_of_the_kept_reports_would_be_wrong():
    """The planted mistake for the test above."""
    probe = ReluProbe(keep=2)
    fitted(probe)
    assert history(probe.reports)["hidden"].dead_since.tolist() == [5, 5, 5, 6, -1, -1]
    assert probe.history["hidden"].dead_since.tolist() == [0, 1, 3, 6, -1, -1]


def test_a_second_fit_forgets_the_first():
    probe = ReluProbe(keep=1)
    model = fitted(probe)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[probe, SetActive()])
    assert probe.history["hidden"].dead_since.tolist() == [0, 1, -1, -1, -1, 1]


def test_pictures_are_as_frequent_and_show_the_kept_reports(tmp_path):
    everything, probe = ReluProbe(tmp_path), ReluProbe(tmp_path, name="kept", keep=3)
    fitted(everything, probe)
    shown, all_shown = (events(tmp_path / name)[0]["life/hidden"] for name in ("kept", "relu_probe"))
    assert [step for step, _ in shown] == [step for step, _ in all_shown] == [0, 1, 3, 6]
    for step, value in shown:
        told = everything.reports[max(0, step - 2) : step + 1]
        picture = tf.io.decode_png(value[2]).numpy()
        expected = life_picture("hidden", told)
        np.testing.assert_array_equal(picture, expected)
    assert not np.array_equal(shown[-1][1], all_shown[-1][1])


def test_limits_count_the_reports_that_were_dropped():
    probe = ReluProbe(keep=1, max_dead=0.4, patience=2)
    fitted(probe)
    assert [report.epoch for report in probe.reports] == [3]  # above the limit from epoch 1 on


def test_loss_jumps_are_the_newest_and_the_largest_of_the_older_ones():
    jumps, ratios = LossJumpTracker(keep=5), np.random.default_rng(0).permutation(200) + 1.0
    for ratio in ratios:
        jumps.begin_epoch()
        for done, mean in ((1, 1.0), (2, (1 + ratio) / 2)):
            jumps.see(done, mean)
    found = [round(jump.ratio) for jump in jumps.found]
    assert found[-5:] == ratios[-5:].tolist()
    assert sorted(found[:-5]) == sorted(ratios[:-5])[-LARGEST:]
    assert [jump.step for jump in jumps.found] == sorted(jump.step for jump in jumps.found)
    assert all(isinstance(jump, LossJump) for jump in jumps.found)


@pytest.mark.parametrize("keep", [0, -1, 1.5, True, "8"])
def test_invalid_values_of_keep(keep):
    with pytest.raises(ValueError, match="keep is") as error:
        ReluProbe(keep=keep)
    assert str(error.value) == (
        f"keep is {keep!r}; expected a whole number of reports >= 1, or None for all. keep=100 keeps the newest 100."
    )


def risen():
    """A loss jump to 900 at step 4, which ends a rise that began at step 2."""
    jumps, losses = LossJumpTracker(), [2, 1, 3, 30, 900, 40]
    jumps.begin_epoch()
    for step, mean in enumerate(np.cumsum(losses) / np.arange(1, 7)):
        jumps.see(step + 1, mean)
    return jumps.found[-1]


def test_a_jump_knows_since_when_the_loss_has_risen():
    jump = risen()
    assert (jump.step, jump.since, jump.before, jump.after) == (4, 2, 9.0, pytest.approx(900.0))


@pytest.mark.parametrize(("jump", "killed"), [(risen(), 6), (risen()._replace(since=None), None)])
def test_neurons_that_die_in_the_rise_were_killed_by_the_jump(jump, killed):
    """One neuron was never active and one died before the rise; without the rise, 2 of 7 deaths are too few to tell."""
    last = np.array([-1, 0, 1, 1, 2, 2, 3, 9])
    dead = SimpleNamespace(report=SimpleNamespace(dead=last > -2))
    history = SimpleNamespace(last_active=last, ever_active=last >= 0, still_active=last > 9)
    found = SickLayer(dead, own=dead.report.dead, history=history, loss_jumps=(jump,)).deaths_at_loss_jump()
    assert (found and np.count_nonzero(found[0])) == killed
