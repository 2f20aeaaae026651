"""Faults: copies of the probe, and of the model during training. A copy is complete and independent."""

import copy
import pickle

import child_process
import harm
import numpy as np
import pytest
from harm import K
from keras_version import KERAS

from relu_probe import ReluProbe

# --- of the probe -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_of_the_probe_has_its_reports_and_works_in_any_fit(tmp_path, copied):
    probe = ReluProbe(tmp_path, data=harm.data(), name="mine", freq=2, layers="hid*", activation_sum=True, strict=True)
    for _ in range(2):  # before the first fit, and after it
        other = copied(probe)
        assert other.reports == probe.reports
        harm.assert_no_harm(lambda callbacks: harm.fitted(harm.net(), callbacks), [other])
        assert [report.samples for report in other.reports] == [24]
        assert (other.name, other.freq, other.layers) == ("mine", 2, "hid*")
        harm.fitted(harm.net(), [probe])
        assert probe.reports == other.reports


def test_a_copy_made_during_a_fit_takes_no_part_in_it(tmp_path):
    copies = []
    probe = ReluProbe(tmp_path, strict=True)
    take = K.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: copies.append(copy.deepcopy(probe)),
        on_epoch_end=lambda epoch, logs: copies.append(pickle.loads(pickle.dumps(probe))),
    )
    harm.assert_no_harm(lambda callbacks: harm.fitted(harm.net(), callbacks), [probe, take])
    assert [len(other.reports) for other in copies] == [0, 0, 0, 1, 1, 1, 1, 2]
    assert [report.epoch for report in probe.reports] == [0, 1]
    model = harm.net()
    harm.fitted(model, [copies[0]])
    assert copies[0].reports == probe.reports


# --- of the model -----------------------------------------------------------------------------------------------------

LOAD = """
import sys
sys.modules["relu_probe"] = None  # as if it were not installed
import harm, numpy as np, tensorflow as tf
from harm import K
for path in sys.argv[1:]:
    if path.endswith("export"):
        loaded = tf.saved_model.load(path)
        print(np.asarray(loaded.serve(harm.data()[0])).ravel().tolist())
    else:
        print(K.models.load_model(path).predict(harm.data()[0], verbose=0).ravel().tolist())
"""


class Copies(K.callbacks.Callback):
    """Clones, saves and exports the model at the beginning and end of each batch, and at the end of each epoch."""

    def __init__(self, place):
        super().__init__()
        self.place, self.clones = place, []

    def on_train_batch_begin(self, batch, logs=None):
        self.take(f"batch{int(batch)}")

    def on_train_batch_end(self, batch, logs=None):
        self.take(f"end{int(batch)}")

    def on_epoch_end(self, epoch, logs=None):
        self.take("epoch")
        self.model.export(str(self.place / "export"), **({"verbose": False} if KERAS >= (3, 4) else {}))

    def take(self, when):
        clone = K.models.clone_model(self.model)
        clone.set_weights(self.model.get_weights())
        self.model.save(self.place / f"{when}.keras")
        self.clones.append(clone)


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """The copies from a fit with a probe and from a fit without one."""
    made = {}
    for which in ("plain", "watched"):
        place = tmp_path_factory.mktemp(which)
        taken, model = Copies(place), harm.net()
        kept = K.callbacks.ModelCheckpoint(str(place / "kept.keras"), verbose=0)
        probes = [ReluProbe(strict=True)] if which == "watched" else []
        left = harm.fitted(model, [taken, *probes, kept, taken], epochs=1)
        made[which] = (place, taken.clones, left)
    return made


FILES = ["kept.keras", "epoch.keras", "batch1.keras", "end1.keras", "export"]


def test_files_saved_or_exported_in_a_fit_load_without_relu_probe_and_are_the_same(copies):
    paths = [str(copies[which][0] / name) for name in FILES for which in ("plain", "watched")]
    printed = child_process.output(LOAD, *paths).splitlines()[-len(paths) :]
    assert len(printed) == 2 * len(FILES)
    assert printed[::2] == printed[1::2]
    assert printed[0] != printed[4]  # it was saved after another step
    for path in copies["watched"][0].rglob("*"):
        assert path.is_dir() or b"relu_probe" not in path.read_bytes(), path


def test_clones_taken_in_a_fit_are_clean_and_the_same(copies):
    (_, plain, left), (_, watched, other) = copies.values()
    assert harm.same(left, other)
    assert len(plain) == len(watched) == 14
    for one, two in zip(plain, watched):
        assert all(map(np.array_equal, one.get_weights(), two.get_weights()))
        assert not [layer for layer in two.layers if "call" in vars(layer)]
        assert one.get_config()["layers"][1]["config"] == two.get_config()["layers"][1]["config"]
    clone = watched[2]
    clone.compile("sgd", "mse")
    probe = ReluProbe(strict=True)
    harm.fitted(clone, [probe], epochs=1)
    assert probe.report.samples == 24
