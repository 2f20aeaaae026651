"""Study 1: nets that are so deep and narrow that almost all of them collapse at birth (Lu et al. 2019, arXiv:1903.06733).

Nets of 10 hidden layers with 2 ReLUs each learn |x| on [-sqrt 3, sqrt 3]. A net is collapsed if it predicts a constant.

Primary outcome: the share of nets that are collapsed at the end. Primary comparison: `revive` by cause against nothing.
"""

from typing import Any
from unittest.mock import patch

import numpy as np
import tensorflow as tf
from stacked_nets import Asymmetric, K, L, OfOneNet, stacked

from relu_probe import Revive, measure
from relu_probe.cure import neuron_weights

DEPTH, WIDTH, SAMPLES, BATCH, EPOCHS, EDGE = 10, 2, 512, 64, 30, float(np.sqrt(3))
GRID = np.linspace(-EDGE, EDGE, 201, dtype=np.float32)[:, None, None]
ARMS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "revive by cause": {"revive": {}},
    "redo": {"revive": {"method": "redo"}},
    "LeakyReLU": {"slope": 0.3},
    "a lower rate": {"rate": 0.003},
    "standardised targets": {"standardised": True},
    "randomised asymmetric initialisation": {"kernel": Asymmetric},
}
# Five tries of each arm that has a number to choose, made with seeds below 1,000; those of `revive`, which cost more, are short.
TRIES: dict[str, dict[str, Any]] = {
    **{f"revive, fire={fire}, short": {"revive": {"fire": fire}, "epochs": 15} for fire in (0.3, 0.5, 0.7, 0.9)},
    "revive, all weights drawn, short": {"revive": {}, "factor": 0.0, "epochs": 15},
    **{f"LeakyReLU, slope {slope}": {"slope": slope} for slope in (0.01, 0.03, 0.1, 0.2, 0.3)},
    **{f"rate {rate}": {"rate": rate} for rate in (0.005, 0.003, 0.001, 0.0003, 0.0001)},
}


def run(nets: int, seed: int, epochs: int = EPOCHS, *, arms: dict[str, dict[str, Any]] = ARMS) -> dict[str, Any]:
    """Arm -> `collapsed_at_birth`, `collapsed`, a digit for each net, and `error`, the mean squared error on the grid."""
    return {name: train(nets, seed, **{"epochs": epochs, **arm}) for name, arm in arms.items()}


def train(
    nets: int,
    seed: int,
    epochs: int,
    *,
    revive: dict[str, Any] | None = None,
    slope: float = 0.0,
    rate: float = 0.01,
    standardised: bool = False,
    kernel: type[OfOneNet] = OfOneNet,
    factor: float = neuron_weights._OVERSIZED,
) -> dict[str, Any]:
    """Trains the nets of one arm. Inputs have mean 0 and deviation 1 as they are; `standardised` shifts and scales the targets."""
    K.utils.set_random_seed(seed)
    x = np.random.default_rng(seed).uniform(-EDGE, EDGE, (SAMPLES, nets, 1)).astype("float32")
    shift, scale = (EDGE / 2, EDGE / np.sqrt(12)) if standardised else (0.0, 1.0)
    y = (np.abs(x) - shift) / scale
    kernels = [kernel(seed=1000 * seed + i) for i in range(DEPTH + 1)]
    activation = L.LeakyReLU(slope) if slope else "relu"
    model = stacked(nets, 1, [WIDTH] * DEPTH + [1], activation, kernels)
    model.compile(K.optimizers.Adam(rate), lambda y, p: tf.reduce_sum((y - p) ** 2, axis=(1, 2)))
    at_birth = collapsed(model)
    callbacks = [] if revive is None else [Revive((x, y), batch_size=SAMPLES, seed=seed, strict=True, **revive)]
    with patch.object(neuron_weights, "_OVERSIZED", factor):
        model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=callbacks)
    error = np.mean((scale * predictions(model) + shift - np.abs(GRID)) ** 2, axis=(0, 2))
    return {
        "collapsed_at_birth": _digit_for_each(at_birth),
        "collapsed": _digit_for_each(collapsed(model)),
        "error": [float(f"{value:.3g}") for value in error],
        "dead_fraction": None if slope else float(measure(model, x, batch_size=SAMPLES).dead_fraction),
    }


def _digit_for_each(flags: Any) -> str:
    return "".join("1" if flag else "0" for flag in flags)


def predictions(model: Any) -> Any:
    """`(grid, nets, 1)`, the predictions on the grid."""
    return np.asarray(model(np.broadcast_to(GRID, (len(GRID), model.input_shape[1], 1))))


def collapsed(model: Any) -> Any:
    """`(nets,)` bool: the standard deviation of the prediction on the grid is below 1e-3."""
    return np.std(predictions(model), axis=0)[:, 0] < 1e-3
