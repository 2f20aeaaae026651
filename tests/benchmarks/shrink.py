"""How much smaller and faster networks for images become without dead channels. Prints a row for each network.

    python tests/benchmarks/shrink.py

The times of the two models are measured in turn in one process: only their ratio means anything.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from relu_probe import shrink

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from shrink_models import with_dead_channels

NETWORKS = {
    "MobileNetV2": lambda: tf.keras.applications.MobileNetV2((96, 96, 3), weights=None, classes=10),
    "ResNet50": lambda: tf.keras.applications.ResNet50(weights=None, input_shape=(96, 96, 3), classes=10),
}


def main():
    print("network       dead channels  parameters left  time of a prediction")
    x = np.random.default_rng(0).standard_normal((8, 96, 96, 3)).astype("float32")
    for name, make in NETWORKS.items():
        for share in (0.25, 0.5):
            found = shrink(with_dead_channels(make(), share), x, batch_size=8)
            (before, after), (slow, fast) = found.parameters, found.seconds
            print(
                f"{name:12}  {found.report.dead_fraction:13.0%}  {after / before:15.1%}  {fast / slow:20.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
