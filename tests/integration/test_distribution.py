"""Distributed training: every worker reports the same global counts, those of one device on the same data."""

import json

import cluster
import numpy as np
import oracle
import pytest
import tensorflow as tf
from assertions import assert_report
from child_process import output, python
from event_files import epochs_written
from keras_version import LEGACY
from models import integer_network

from relu_probe import Report, measure

K, L = tf.keras, tf.keras.layers

keras_3_only = pytest.mark.skipif(LEGACY, reason="tf_keras' fit works under MultiWorkerMirroredStrategy")
tf_keras_only = pytest.mark.skipif(not LEGACY, reason="Keras 3's own fit fails under MultiWorkerMirroredStrategy")


@pytest.fixture(scope="module")
def one_device():
    """The oracle's counts, which one device counts too."""
    built = integer_network()
    expected = oracle.measure(built, oracle.batches(*cluster.arrays(), cluster.BATCH))
    report = measure(built, cluster.arrays(), batch_size=cluster.BATCH)
    assert_report(report, expected, cluster.N)
    return expected


# --- many devices -----------------------------------------------------------------------------------------------------

MIRRORED = """
import json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import cluster, harm
from models import integer_network, sequential
from relu_probe import ReluProbe, measure
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    model = integer_network()
probe, with_data = ReluProbe(strict=True), ReluProbe(data=cluster.arrays(), strict=True)
for _ in range(2):
    model.fit(*cluster.arrays(), batch_size=cluster.BATCH, epochs=2, verbose=0, callbacks=[probe])
model.fit(cluster.batches(), verbose=0, shuffle=False, callbacks=[with_data])
found = {"fit": [*probe.reports, with_data.report]}
found["measure"] = [measure(model, cluster.arrays(), batch_size=size) for size in (1, 8, 64)]
found["measure"].append(measure(model, cluster.batches()))
with strategy.scope():
    model = integer_network()
found["watch"] = cluster.watched(strategy, model)
found = {job: [report.to_dict() for report in reports] for job, reports in found.items()}

with strategy.scope():  # so wide that NaN are looked for only after a sum is NaN
    model = sequential(300, harm.L.ReLU(name="relu"), harm.L.Dense(1))
x = harm.np.ones((8, 300), "float32")
x[7, 17] = harm.np.nan  # in the second replica's half of the batch
model.fit(x, harm.np.ones((8, 1)), batch_size=8, shuffle=False, verbose=0, callbacks=[probe])
found["nan"] = probe.report.to_dict()

def train(callbacks):
    harm.K.utils.set_random_seed(1)
    with strategy.scope():
        L, rate = harm.L, 0.3 if harm.KERAS3 else 0  # tf_keras' Dropout draws other numbers in each trace
        hidden = [L.Dense(16, "relu"), L.BatchNormalization(), L.Dropout(rate), L.Dense(6, "relu")]
        model = sequential(4, *hidden, L.Dense(1), optimizer=harm.K.optimizers.Adam(0.01), metrics=["mae"])
    return harm.fitted(model, callbacks, *harm.data(22))

class Nudges(harm.K.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.model.layers[0].bias.assign_add([1e-6] * 16)

for name, callback in (("probe", ReluProbe(strict=True)), ("harmful", Nudges())):
    try:
        harm.assert_no_harm(train, [callback])
        found[name] = "no harm"
    except AssertionError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def mirrored():
    """The results of all jobs, from one process: the number of devices must be set before TensorFlow starts."""
    return json.loads(output(MIRRORED).splitlines()[-1])


@pytest.mark.parametrize("job", ["fit", "measure", "watch"])
def test_two_devices_count_what_one_counts(job, mirrored, one_device):
    reports = [Report.from_dict(report) for report in mirrored[job]]
    assert len(reports) == {"fit": 3, "measure": 4, "watch": cluster.EPOCHS}[job]
    for report in reports:
        assert_report(report, one_device, cluster.N)
        dated = report["a"].last_active
        assert dated is None or dated[0] == -1 < dated[1:].min()


def test_a_nan_of_one_device_is_seen(mirrored):
    layer = Report.from_dict(mirrored["nan"])["relu"]
    assert np.flatnonzero(layer.nan).tolist() == [17]
    assert layer.active.tolist() == [7 if i == 17 else 8 for i in range(300)]


def test_two_devices_train_bit_by_bit_as_without_the_probe(mirrored):
    """Weights, optimizer state, History, with BatchNormalization, Dropout and a partial batch."""
    assert mirrored["probe"] == "no harm"
    assert mirrored["harmful"] == "the callback changed the training"  # the comparison can fail


@pytest.mark.once
@pytest.mark.parametrize("mistake", ["one replica's counts", "every replica's counts twice"])
def test_the_comparison_rejects(mistake, one_device):
    built, (x, y) = integer_network(), cluster.arrays()
    half = measure(built, (x[::2], y[::2]))
    wrong = half if mistake == "one replica's counts" else measure(built, (x, y)) + measure(built, (x, y))
    with pytest.raises(AssertionError):
        assert_report(wrong, one_device, cluster.N)


# --- many machines ----------------------------------------------------------------------------------------------------


def ended_well(workers):
    for worker in workers:
        assert worker.code == 0, worker.err[-3000:]
    chief, *others = [worker.reports() for worker in workers]
    for reports in others:
        assert reports == chief
    return chief


@tf_keras_only
def test_fit_and_measure_on_two_workers(one_device):
    reports = ended_well(cluster.run("fit_and_measure"))
    assert [report.source for report in reports] == ["train", "data", "measure", "measure"]
    for report in reports:
        assert_report(report, one_device, cluster.N)


@tf_keras_only
def test_only_the_chief_writes(one_device, tmp_path):
    reports = ended_well(cluster.run("fit", tmp_path))
    for report in reports:
        assert_report(report, one_device, cluster.N)
    assert len(list((tmp_path / "relu_probe").iterdir())) == 1
    assert epochs_written(tmp_path) == [0, 1, 2]


def test_a_custom_loop_on_two_workers(one_device):
    reports = ended_well(cluster.run("loop"))
    assert len(reports) == cluster.EPOCHS
    for report in reports:
        assert_report(report, one_device, cluster.N)


def ended_with_tensorflows_error(workers):
    """The killed worker ended by the signal, the other by an error of TensorFlow. `cluster.run` raises if a worker hangs."""
    assert workers[1].code == -9
    assert workers[0].code not in (0, -9)
    assert "tensorflow.python.framework.errors_impl." in workers[0].err or "heartbeat" in workers[0].err


@tf_keras_only
def test_a_worker_that_is_killed_in_fit(tmp_path):
    ended_with_tensorflows_error(cluster.run("fit_killed", tmp_path))
    assert epochs_written(tmp_path)[:2] == [0, 1]  # what was written stays readable


def test_a_worker_that_is_killed_in_a_loop():
    ended_with_tensorflows_error(cluster.run("loop_killed"))


@tf_keras_only
def test_a_full_disk_on_the_chief_stops_writing_only(one_device, tmp_path):
    workers = cluster.run("fit_on_a_full_disk", tmp_path)
    assert [worker.code for worker in workers] == [0, 0], workers[0].err[-3000:]
    for worker in workers:
        assert [report.epoch for report in worker.reports()] == [0, 1, 2]
        for report in worker.reports():
            assert_report(report, one_device, cluster.N)
    assert "relu_probe: logging stopped" in workers[0].err
    assert "logging stopped" in workers[0].reports()[1].incomplete
    assert "relu_probe" not in workers[1].err
    assert epochs_written(tmp_path) == [0]


@tf_keras_only
def test_a_fault_on_one_worker_leaves_all_in_step(one_device, tmp_path):
    """Reading the counters is a collective: if one worker stopped reading or counting, the others would wait for ever."""
    workers = cluster.run("fit_with_a_fault", tmp_path)
    assert [worker.code for worker in workers] == [0, 0], workers[0].err[-3000:]
    assert [[report.epoch for report in worker.reports()] for worker in workers] == [[0, 1, 2], [0, 2]]
    for report in workers[0].reports() + workers[1].reports():
        assert_report(report, one_device, cluster.N)
    assert "relu_probe" not in workers[0].err
    assert workers[1].err.count("relu_probe: measuring stopped: MemoryError: on one worker") == 1
    assert [bool(report.incomplete) for report in workers[1].reports()] == [True, True]


def test_workers_agree():
    ended_well(cluster.run("agree"))


@tf_keras_only
@pytest.mark.parametrize(
    ("job", "end", "measured"),
    [
        ("fit_that_is_stopped", "relu_probe: training stopped after epoch 1: ", [0, 1]),
        ("fit_that_is_failed", "relu_probe: training failed in epoch 2: ", [0, 2]),
    ],
)
def test_a_limit_ends_all_workers_in_the_same_epoch(job, end, measured):
    """One worker has lost a report, so that it alone would not stop yet; it would wait for ever for the workers that did."""
    workers = cluster.run(job, timeout=60)
    assert [worker.code for worker in workers] == [0, 0], workers[1].err[-3000:]
    assert [[report.epoch for report in worker.reports()] for worker in workers] == [measured, [0]]
    assert f"{end}a: 1 of 5 dead" in workers[0].out
    lost = "measuring stopped: MemoryError: on one worker"
    assert f"{end}a limit was exceeded on another worker. This one lost a report: {lost}\n" in workers[1].out


@tf_keras_only
def test_data_that_fails_on_one_worker_ends_the_run(tmp_path):
    """The others wait in the middle of a pass: without the error they would wait for ever."""
    workers = cluster.run("fit_on_broken_data", tmp_path)
    assert [worker.code for worker in workers] != [0, 0]
    assert "OSError: the file is gone" in workers[1].err
    assert all("tensorflow.python.framework.errors_impl." in worker.err for worker in workers)


@keras_3_only
def test_keras_3s_own_fit_fails_on_two_workers_without_the_probe():
    """Pins keras#20585: when it works, remove `tf_keras_only` and change the row in the README."""
    for worker in cluster.run("fit_bare"):
        assert worker.code != 0, "Keras 3's fit works under MultiWorkerMirroredStrategy now: test it with the probe"
        assert "/keras/src/" in worker.err
        assert "relu_probe/" not in worker.err


# --- refused by name --------------------------------------------------------------------------------------------------

REFUSED = (
    "the model was made under {}, on which the counts would be wrong; expected MirroredStrategy, "
    "MultiWorkerMirroredStrategy, OneDeviceStrategy or none. Measure a copy of the model outside of it."
)

PARAMETER_SERVER = """
import numpy as np, tensorflow as tf, socket, contextlib, os
from relu_probe import ReluProbe, measure, watch
with contextlib.ExitStack() as stack:
    free = [stack.enter_context(socket.socket()) for _ in range(2)]
    for one in free:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in free]
spec = tf.train.ClusterSpec({name: [f"127.0.0.1:{port}"] for name, port in zip(("worker", "ps"), ports)})
servers = [tf.distribute.Server(spec, job_name=name, task_index=0) for name in ("worker", "ps")]
resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, rpc_layer="grpc")
strategy = tf.distribute.ParameterServerStrategy(resolver)
with strategy.scope():
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2, "relu"), tf.keras.layers.Dense(1)])
for work in (lambda: measure(model, np.ones((2, 3))), lambda: watch(model).__enter__(), lambda: ReluProbe().set_model(model)):
    try:
        work()
    except ValueError as error:
        print(error, flush=True)
os._exit(0)  # the servers cannot be stopped
"""


def test_a_parameter_server_is_refused_by_name():
    assert output(PARAMETER_SERVER).splitlines() == [REFUSED.format("ParameterServerStrategy")] * 3


@pytest.mark.parametrize("kind", [tf.distribute.TPUStrategy, tf.distribute.experimental.TPUStrategy])
def test_a_tpu_is_refused_by_name(kind):
    """With a real strategy object that was never connected, since there is no TPU."""

    class OnTPU(K.Sequential):
        @property
        def distribute_strategy(self):
            return object.__new__(kind)

    with pytest.raises(ValueError) as error:  # noqa: PT011  # compared word for word
        measure(OnTPU(), [[1.0]])
    assert str(error.value) == REFUSED.format("TPUStrategy")


# --- the wrong Keras --------------------------------------------------------------------------------------------------

MISMATCH = """
import numpy as np, {keras} as keras
from relu_probe import ReluProbe, measure
model = keras.Sequential([keras.layers.Dense(1, "relu")], name="net")
model.compile("sgd", "mse")
x = np.ones((1, 1))
for work in (lambda: model.fit(x, x, verbose=0, callbacks=[ReluProbe()]), lambda: measure(model, x)):
    try:
        work()
    except TypeError as error:
        print(error)
"""


MISMATCHES = [
    (
        "tf_keras",
        "0",
        "Sequential is a tf_keras model, and tf.keras is Keras 3 in this process; set the environment variable "
        "TF_USE_LEGACY_KERAS=1 before TensorFlow is imported.",
    ),
    (
        "keras",
        "1",
        "Sequential is a Keras 3 model, and tf.keras is tf_keras in this process; unset the environment variable "
        "TF_USE_LEGACY_KERAS, or build the model with tf.keras.",
    ),
]


@pytest.mark.parametrize(("keras", "legacy", "text"), MISMATCHES)
def test_a_model_of_the_other_keras_is_refused(keras, legacy, text):
    pytest.importorskip("tf_keras")
    result = python(MISMATCH.format(keras=keras), TF_USE_LEGACY_KERAS=legacy)
    assert result.stdout.splitlines() == [text] * 2, result.stderr[-2000:]
