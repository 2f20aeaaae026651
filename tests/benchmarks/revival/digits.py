"""Studies 3 and 4: handwritten digits, with one bad training step, and without.

Nets of three hidden layers with 64 ReLUs each, 12 epochs of SGD with rate 0.1. In study 3 one step, in the fifth epoch, has
200 times the rate, as in the notebook `sick_network.ipynb`. In study 4 nothing happens: `revive` has nothing to gain, and
should lose nothing. Each net has its own split of the data, its own initial weights and its own order of batches.

Primary outcome of both: the accuracy on held-out digits at the end. Primary comparison: `revive` by cause against nothing.
"""

from typing import Any
from unittest.mock import patch

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from stacked_nets import K, L, OfOneNet, stacked

from relu_probe import Revive, measure
from relu_probe.cure import neuron_weights

BATCH, TRAINED, RATE, FACTOR, BAD_STEP, BAD_EPOCH = 32, 1440, 0.1, 200, 216, 4
ARMS: dict[str, dict[str, Any]] = {
    "no bad step": {"shock": False},
    "nothing": {},
    "revive by cause": {"revive": {}},
    "redo": {"revive": {"method": "redo"}},
    "LeakyReLU": {"slope": 0.3},
    "a lower rate": {"rate": 0.02},
    "standardised inputs": {"standardised": True},
}
HEALTHY_ARMS = {name: {**arm, "shock": False} for name, arm in ARMS.items() if name != "no bad step"}
# One revival, at the end of the epoch with the bad step, and 100 epochs after it.
SURVIVAL_ARMS: dict[str, dict[str, Any]] = {
    name: {"revive": {"method": method, "start": BAD_EPOCH, "stop": BAD_EPOCH + 1}}
    for name, method in (("revive by cause", "cause"), ("redo", "redo"))
}
# Seven tries of each arm that has a number to choose, made with seeds below 1,000. Those of `revive` were made when it still
# flipped the sign of weights that no sample makes positive; it draws them now, because drawing all weights was the best try.
TRIES: dict[str, dict[str, Any]] = {
    **{f"revive, fire={fire}": {"revive": {"fire": fire}} for fire in (0.3, 0.5, 0.7, 0.9, 1.0)},
    "revive, all weights drawn": {"revive": {}, "factor": 0.0},
    "revive, weights drawn above 2": {"revive": {}, "factor": 2.0},
    **{f"LeakyReLU, slope {slope}": {"slope": slope} for slope in (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)},
    **{f"rate {rate}": {"rate": rate} for rate in (0.07, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002)},
}


class OneBadStep(K.callbacks.Callback):
    """Multiplies the learning rate for one training step."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.step = rate, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Counts the steps."""
        self.model.optimizer.learning_rate.assign(self.rate * (FACTOR if self.step == BAD_STEP else 1))
        self.step += 1


class GiveUp(K.callbacks.Callback):
    """Makes the weights of nets that blew up NaN, in all arms: `revive` would refuse the whole stack because of one of them."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """A net blew up if one of its weights is beyond one million, or not a number."""
        weights = self.model.get_weights()
        sound = np.all([np.all(np.abs(w) < 1e6, axis=tuple(range(1, w.ndim))) for w in weights], axis=0)
        if not np.all(sound):
            self.model.set_weights([np.where(sound.reshape(-1, *[1] * (w.ndim - 1)), w, np.nan) for w in weights])


def split(nets: int, seed: int, *, standardised: bool = False) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Digits for training and held-out digits, of each net in an order of its own: `(images, nets, 64)`, `(images, nets, 10)`."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(len(images)) for _ in range(nets)], axis=1)
    x, y = (images / 16).astype("float32")[order], np.eye(10, dtype="float32")[labels[order]]
    if standardised:
        x = (x - x[:TRAINED].mean(axis=0)) / (x[:TRAINED].std(axis=0) + 0.1)
    return (x[:TRAINED], y[:TRAINED]), (x[TRAINED:], y[TRAINED:])


def run(nets: int, seed: int, epochs: int = 12, *, arms: dict[str, dict[str, Any]] = ARMS) -> dict[str, Any]:
    """Arm -> the results of `train`."""
    return {name: train(nets, seed, epochs, **arm) for name, arm in arms.items()}


def train(
    nets: int,
    seed: int,
    epochs: int,
    *,
    revive: dict[str, Any] | None = None,
    slope: float = 0.0,
    rate: float = RATE,
    standardised: bool = False,
    shock: bool = True,
    factor: float = neuron_weights._OVERSIZED,
) -> dict[str, Any]:
    """Trains the nets of one arm.

    Returns:
        `accuracy` of each net; `blew_up`, how many did; `dead_fraction` of all, None for LeakyReLU; `survival`: epochs after a revival -> the share of
        the revived neurons that fire then.
    """
    K.utils.set_random_seed(seed)
    training, held_out = split(nets, seed, standardised=standardised)
    kernels = [OfOneNet("glorot_uniform", 1000 * seed + i) for i in range(4)]
    model = stacked(nets, 64, [64, 64, 64, 10], L.LeakyReLU(slope) if slope else "relu", kernels, last="softmax")
    model.compile(K.optimizers.SGD(rate), lambda y, p: tf.reduce_sum(K.losses.categorical_crossentropy(y, p), axis=-1))
    callbacks: list[Any] = [OneBadStep(rate), GiveUp()] if shock else []
    survival = Survival(training)
    if revive is not None:
        survival.revive = Revive(training, batch_size=TRAINED, seed=seed, strict=True, **revive)
        callbacks += [survival, survival.revive]
    with patch.object(neuron_weights, "_OVERSIZED", factor):
        model.fit(*training, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=callbacks)
    right = np.argmax(model.predict(held_out[0], batch_size=TRAINED, verbose=0), -1) == np.argmax(held_out[1], -1)
    return {
        "accuracy": [round(float(value), 4) for value in right.mean(axis=0)],
        "blew_up": int(np.sum(np.isnan(model.get_weights()[0]).any(axis=(1, 2)))),
        "dead_fraction": None if slope else float(measure(model, training, batch_size=TRAINED).dead_fraction),
        "survival": survival.shares(),
    }


class Survival(K.callbacks.Callback):
    """Counts how many of the neurons revived at an epoch's end fire 1, 3, 10, 30 and 100 epochs later. List it before `Revive`."""

    AFTER = (1, 3, 10, 30, 100)

    def __init__(self, data: Any) -> None:
        super().__init__()
        self.data, self.revive = data, None
        self.counts: dict[int, list[int]] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Looks at the neurons that were revived some epochs ago, before the next revival."""
        revivals = {n: found for n in self.AFTER if (found := self.revive.revivals.get(epoch - n)) and found.revived}
        report = measure(self.model, self.data, batch_size=TRAINED) if revivals else {}
        for n, revival in revivals.items():
            fire = [report[key].active[layer.neurons] > 0 for key, layer in revival.layers.items()]
            self.add(n, np.concatenate(fire))

    def add(self, epochs: int, fire: Any) -> None:
        """Adds the neurons that were revived so many epochs ago."""
        alive, all_ = self.counts.get(epochs, [0, 0])
        self.counts[epochs] = [alive + int(np.sum(fire)), all_ + len(fire)]

    def shares(self) -> dict[str, list[int]]:
        """Epochs after a revival -> [the revived neurons that fire then, all revived neurons]."""
        return {str(epochs): counts for epochs, counts in sorted(self.counts.items())}
