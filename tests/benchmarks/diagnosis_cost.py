"""The cost of `diagnose` relative to that of `measure`: time and peak memory, each in a process of its own."""

import json
import subprocess
import sys

import numpy as np

GOALS = "<= 8 and <= 1.5"
MODELS = ("MLP 3 x 512", "CNN", "MobileNet 96 x 96")
SAMPLES = 256

_CODE = """
import json, resource, sys, time
import numpy as np, tensorflow as tf
from relu_probe import diagnose, measure
K, L = tf.keras, tf.keras.layers
shape, layers = {
    "MLP 3 x 512": ((784,), lambda: [L.Dense(512, "relu") for _ in range(3)]),
    "CNN": ((32, 32, 3), lambda: [*(L.Conv2D(n, 3, activation="relu") for n in (32, 64, 64)), L.Flatten()]),
    "MobileNet 96 x 96": ((96, 96, 3), None),
}[sys.argv[1]]
if layers is None:
    net = K.applications.MobileNet(weights=None, input_shape=shape, classes=10)
else:
    net = K.Sequential([K.Input(shape), *layers(), L.Dense(10, "softmax")])
net.compile("sgd", "sparse_categorical_crossentropy")
rng, n = np.random.default_rng(0), int(sys.argv[3])
x, y = rng.random((n, *shape), np.float32), rng.integers(0, 10, n)
start = time.perf_counter()
{"measure": measure, "diagnose": diagnose}[sys.argv[2]](net, (x, y))
seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def diagnosing(repeats: int) -> list[tuple[str, str, str]]:
    """`diagnose` / `measure`, tracing included: the medians of the times, and the ratio of the peaks of memory."""
    rows = []
    for name in MODELS:
        runs = {kind: np.array([_run(name, kind) for _ in range(repeats)]) for kind in ("measure", "diagnose")}
        (base, base_peak), (time, peak) = (np.median(runs[kind], axis=0) for kind in ("measure", "diagnose"))
        what = f"diagnose / measure, {name}, {SAMPLES} samples: time ({base:.1f} s), peak memory ({base_peak:.0f} MB)"
        rows.append((what, f"{time / base:.1f}, {peak / base_peak:.2f}", GOALS))
    return rows


def _run(name: str, kind: str) -> list[float]:
    """Returns the seconds and the peak memory in MB of one run."""
    command = [sys.executable, "-c", _CODE, name, kind, str(SAMPLES)]
    found: list[float] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    )
    return found
