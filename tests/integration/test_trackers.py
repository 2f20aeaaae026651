"""What of a probe arrives in experiment trackers. Each one that is not installed is skipped: the package needs none of them.

They were last run with wandb 0.31.0, mlflow 3.17.2 and trackio 0.43.0, on TensorFlow 2.21.0. What arrives in Keras's own
`History` and `CSVLogger` is tested in tests/event_files/test_summaries.py and tests/callbacks/test_end_of_fit.py.
"""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from child_process import output

pytestmark = pytest.mark.once
DEAD, ZERO_GRADIENT = "dead_fraction", "zero_gradient_fraction"
LOGS = {DEAD, "max_dead_fraction", ZERO_GRADIENT, "nan_fraction"}
LAYER_SCALARS = {f"{tag}/hidden" for tag in (DEAD, ZERO_GRADIENT, "blocked_fraction", "died", "revived")}


def installed(*modules):
    missing = [name for name in modules if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not installed")


SCRIPT = """
import json, os, sys
import numpy as np
import tensorflow as tf
from relu_probe import ReluProbe
K = tf.keras

def fit(probe, *callbacks):
    K.utils.set_random_seed(0)
    x = np.random.default_rng(0).random((64, 4), np.float32)
    bias = K.initializers.Constant([-9, -9, -0.5, -0.5, 0, 0, 0.5, 0.5])
    hidden = K.layers.Dense(8, "relu", bias_initializer=bias, name="hidden")
    model = K.Sequential([K.Input((4,)), hidden, K.layers.Dense(1)])
    model.compile(K.optimizers.SGD(0.5), "mse")
    history = model.fit(x, x.sum(axis=1), epochs=3, verbose=0, callbacks=[probe, *callbacks])
    reports = [[report.dead_fraction, report.zero_gradient_fraction] for report in probe.reports]
    return history.history, reports

def save(seen, reports):
    with open("seen.json", "w") as file:
        json.dump([seen, reports], file)

os.chdir(sys.argv[1])
"""


def seen_by(script, directory, **environment):
    """Runs the script, asserts that the values of the whole model are the reports', and returns the names that arrived."""
    output(SCRIPT + script, str(directory), **environment)
    seen, reports = json.loads((directory / "seen.json").read_text())
    dead, zero_gradient = np.transpose(reports)
    prefix = "epoch/" if f"epoch/{DEAD}" in seen else ""
    np.testing.assert_array_equal(np.float32(seen[prefix + DEAD]), np.float32(dead))
    np.testing.assert_array_equal(np.float32(seen[prefix + ZERO_GRADIENT]), np.float32(zero_gradient))
    assert len(set(dead)) > 1, "numbers that differ from epoch to epoch"
    return set(seen)


# --- Weights & Biases, offline ----------------------------------------------------------------------------------------

WANDB = """
import struct, wandb
from glob import glob
from wandb.proto.wandb_internal_pb2 import Record

def records():
    "The records of the run's file, which has the format of LevelDB's logs: blocks of 32 KiB, records in parts."
    wandb.teardown()  # waits for the process that writes the file: a run may end before the file is complete
    data = open(glob("wandb/offline*/*.wandb")[0], "rb").read()
    at, record = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, part = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if part in (1, 4):  # a whole record, or its last part
            yield Record.FromString(record)
            record = b""

def seen():
    found = {}
    for record in records():
        for item in record.history.item:
            found.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
    return {name: values for name, values in found.items() if not name.startswith("_")}
"""
OFFLINE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}


@installed("wandb")
def test_wandb_metrics_logger(tmp_path):
    script = """
from wandb.integration.keras import WandbMetricsLogger
with wandb.init():
    _, reports = fit(ReluProbe(), WandbMetricsLogger())
save(seen(), reports)
"""
    found = seen_by(WANDB + script, tmp_path, **OFFLINE)
    assert found - {"epoch/learning_rate"} == {f"epoch/{name}" for name in (*LOGS, "loss", "epoch")}


@installed("wandb")
def test_wandb_sync_tensorboard(tmp_path):
    """Scalars, histograms and images arrive; the text and the page of custom scalars do not."""
    script = """
with wandb.init(sync_tensorboard=True):
    _, reports = fit(ReluProbe("logs"))
save(seen(), reports)
"""
    found = seen_by(WANDB + script, tmp_path, **OFFLINE)
    assert {DEAD, ZERO_GRADIENT, "blocked_fraction", "global_step"} | LAYER_SCALARS <= found
    assert {"activation_rate/hidden/bins", "gradient_rate/hidden/values", "life/hidden/filenames"} <= found
    assert not [name for name in found if name.startswith(("report", "custom_scalars"))]


# --- MLflow, in a directory of files ----------------------------------------------------------------------------------

MLFLOW = """
import mlflow
mlflow.set_tracking_uri("file://" + os.getcwd() + "/runs")

def seen():
    client, run = mlflow.MlflowClient(), mlflow.last_active_run()
    found = {}
    for name in run.data.metrics:
        steps = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
        found[name] = [steps[step] for step in sorted(steps)]
    return found
"""
FILES = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


@installed("mlflow")
@pytest.mark.parametrize(
    "script",
    [
        "mlflow.keras.autolog(log_models=False)\n_, reports = fit(ReluProbe())\n",
        "with mlflow.start_run():\n    _, reports = fit(ReluProbe(), mlflow.keras.MlflowCallback())\n",
    ],
    ids=["autolog", "callback"],
)
def test_mlflow(tmp_path, script):
    assert seen_by(f"{MLFLOW}\n{script}\nsave(seen(), reports)", tmp_path, **FILES) == {*LOGS, "loss"}


# --- trackio ----------------------------------------------------------------------------------------------------------

TRACKIO = """
import sqlite3, trackio
from glob import glob

def seen():
    (file,) = glob("trackio/*.db")
    rows = sqlite3.connect(file).execute("SELECT metrics FROM metrics ORDER BY step").fetchall()
    rows = [json.loads(row) for row, in rows]
    return {name: [row[name] for row in rows] for name in rows[0]}
"""


@installed("trackio")
def test_trackio(tmp_path):
    script = """
trackio.init(project="ours")
log = K.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: trackio.log(logs, step=epoch))
_, reports = fit(ReluProbe(), log)
trackio.finish()
save(seen(), reports)
"""
    assert seen_by(TRACKIO + script, tmp_path, TRACKIO_DIR=str(tmp_path / "trackio")) == {*LOGS, "loss"}


@installed("trackio", "tbparse")
def test_trackio_finds_no_scalars_of_tensorflow_2_in_event_files(tmp_path):
    """Neither ours nor those of `tf.summary.scalar`: it reads the format of TensorFlow 1."""
    script = """
for write in (lambda: fit(ReluProbe("logs")), plain):
    write()
    try:
        trackio.import_tf_events("logs", project="ours")
    except ValueError as error:
        assert "No TensorFlow events data found" in str(error)
    else:
        raise AssertionError("it reads them now: change the README's table")
"""
    plain = """
def plain():
    with tf.summary.create_file_writer("logs/plain").as_default():
        tf.summary.scalar("a", 1.0, step=0)
"""
    output(SCRIPT + TRACKIO + plain + script, str(tmp_path), TRACKIO_DIR=str(tmp_path / "trackio"))
