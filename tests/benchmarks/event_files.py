"""Benchmark of writing the event files of an epoch with 50 layers of 1,000 neurons.

`python tests/benchmarks/event_files.py` takes a few seconds.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from relu_probe import LayerReport, Report
from relu_probe.tensorboard.summaries import Summaries

LAYERS, NEURONS, POSITIONS, EPOCHS = 50, 1_000, 60_000, 9


def report(epoch: int) -> Report:
    rng = np.random.default_rng(epoch)
    counts = rng.integers(0, POSITIONS, (LAYERS, NEURONS))
    layers = [LayerReport(POSITIONS, POSITIONS, active, active // 2, died=1, revived=1) for active in counts]
    return Report({f"block_{i}/dense": layer for i, layer in enumerate(layers)}, epoch, "train")


def costs(images: bool) -> list[tuple[float, int]]:
    """Returns for each epoch the seconds of writing, and the bytes added to the event file."""
    found, size = [], 0
    with tempfile.TemporaryDirectory() as log_dir:
        summaries = Summaries(log_dir, "run", images=images)
        for epoch in range(EPOCHS):
            written, start = report(epoch), time.perf_counter()
            summaries.write(written, epoch)
            seconds = time.perf_counter() - start
            before, size = size, sum(file.stat().st_size for file in Path(log_dir, "run").iterdir())
            found.append((seconds, size - before))
        summaries.close()
    return found


if __name__ == "__main__":
    for images in (False, True):
        print(f"images={images}; goal without images: 0.5 s and 200,000 bytes per epoch")
        for epoch, (seconds, added) in enumerate(costs(images)):
            print(f"  epoch {epoch}: {seconds:5.2f} s {added:9,} bytes")
