"""Benchmark of `revive`: what revived neurons are worth in training. `python tests/benchmarks/revival.py STUDY` prints a table.

Each study has one primary outcome and one primary comparison, `revive` by cause against nothing, named before the runs; all
else is secondary. The arms are paired: they have the same seeds. Results are kept as JSON in `tests/benchmarks/revival/`, which
the notebook `revival.ipynb` draws.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import stats
from sklearn.datasets import load_digits
from stacked_nets import birth_nets, collapsed, he_normal, randomised_asymmetric

from relu_probe import Revive, measure

K, L = tf.keras, tf.keras.layers
RESULTS = Path(__file__).parent / "revival"
Arm = dict[str, Any]

# --- study 1: collapse at birth (Lu et al. 2019, arXiv:1903.06733) ----------------------------------------------------

BIRTH_ARMS: dict[str, Arm] = {
    "nothing": {},
    "revive by cause": {"revive": {}},
    "revive by cause, fire=0.9": {"revive": {"fire": 0.9}},
    "redo": {"revive": {"method": "redo"}},
    "LeakyReLU": {"activation": L.LeakyReLU()},
    "a lower rate": {"rate": 0.001},
    "standardised targets": {"centred": True},
    "randomised asymmetric initialisation": {"initializer": randomised_asymmetric},
}


def collapse_at_birth(nets: int, seed: int, epochs: int = 60, depth: int = 10) -> dict[str, Any]:
    """Nets of `depth` hidden layers of width 2 learn |x| on [-sqrt 3, sqrt 3]: the share that predicts a constant.

    Primary outcome: the share of nets that are collapsed at the end (std of the prediction on a grid below 1e-3).
    """
    results = {}
    for name, arm in BIRTH_ARMS.items():
        K.utils.set_random_seed(seed)
        model = birth_nets(nets, depth, arm.get("initializer", he_normal), arm.get("activation", "relu"))
        model.compile(K.optimizers.Adam(arm.get("rate", 0.01)), lambda y, p: tf.reduce_sum((y - p) ** 2, axis=(1, 2)))
        x = np.random.default_rng(seed).uniform(-np.sqrt(3), np.sqrt(3), (512, 1, 1)).astype("float32")
        x = np.broadcast_to(x, (512, nets, 1))
        y = np.abs(x) - (np.sqrt(3) / 2 if arm.get("centred") else 0)
        born = collapsed(model)
        callbacks = [Revive((x, y), batch_size=512, seed=seed, **arm["revive"])] if "revive" in arm else []
        model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=callbacks)
        dead = collapsed(model)
        results[name] = {
            "born": int(born.sum()),
            "later": int((dead & ~born).sum()),
            "end": int(dead.sum()),
            "nets": nets,
        }
    return results


# --- study 3: one bad step (notebooks/sick_network.ipynb) -------------------------------------------------------------

STEP_ARMS: dict[str, Arm] = {
    "no bad step": {"shock": 0.1},
    "nothing": {},
    "revive by cause": {"revive": {}},
    "redo": {"revive": {"method": "redo"}},
    "LeakyReLU": {"activation": L.LeakyReLU()},
    "a lower rate": {"rate": 0.03},
    "standardised inputs": {"centred": True},
    "clipped gradients": {"optimizer": {"clipnorm": 0.1}},
}


class OneBadStep(K.callbacks.Callback):
    """Sets another learning rate for one training step."""

    def __init__(self, rate: float, shock: float, at: int) -> None:
        super().__init__()
        self.rate, self.shock, self.at, self.step = rate, shock, at, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Counts the steps."""
        self.model.optimizer.learning_rate.assign(self.shock if self.step == self.at else self.rate)
        self.step += 1


def digits(seed: int, *, centred: bool = False) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Handwritten digits: 1,440 for training, the others held out."""
    images, labels = load_digits(return_X_y=True)
    x, y = (images / 16).astype("float32"), np.eye(10, dtype="float32")[labels]
    order = np.random.default_rng(seed).permutation(len(x))
    train, rest = order[:1440], order[1440:]
    if centred:
        x = (x - x[train].mean(axis=0)) / (x[train].std(axis=0) + 0.1)
    return (x[train], y[train]), (x[rest], y[rest])


def digits_accuracy(seed: int, epochs: int, arm: Arm, shock: float | None) -> dict[str, float]:
    """The accuracy on held-out digits, and the dead fraction, after a training with one bad step at 40 % of it."""
    train, rest = digits(seed, centred=arm.get("centred", False))
    K.utils.set_random_seed(seed)
    hidden = [L.Dense(64, arm.get("activation", "relu"), name=f"hidden_{i}") for i in (1, 2, 3)]
    model = K.Sequential([K.Input((64,)), *hidden, L.Dense(10, "softmax")])
    rate = arm.get("rate", 0.1)
    model.compile(K.optimizers.SGD(rate, **arm.get("optimizer", {})), "categorical_crossentropy", metrics=["accuracy"])
    callbacks: list[Any] = []
    if shock is not None:
        bad = arm.get("shock", shock * rate / 0.1)  # a schedule that multiplies the rate by 200
        callbacks.append(OneBadStep(rate, bad, at=epochs * 45 * 2 // 5))
    if "revive" in arm:
        callbacks.append(Revive(train, seed=seed, **arm["revive"]))
    history = model.fit(*train, epochs=epochs, verbose=0, callbacks=callbacks).history
    accuracy = model.evaluate(*rest, verbose=0, return_dict=True)["accuracy"]
    dead = measure(model, train).dead_fraction if "activation" not in arm else 0.0
    return {
        "accuracy": float(accuracy),
        "dead_fraction": float(dead),
        "revived": float(sum(history.get("revived", [0]))),
    }


def one_bad_step(seeds: int, first: int, epochs: int = 12) -> dict[str, Any]:
    """Primary outcome: the accuracy on held-out digits at the end. Goal: within 1 point of the unharmed run."""
    arms = STEP_ARMS.items()
    return {name: [digits_accuracy(first + i, epochs, arm, 20.0) for i in range(seeds)] for name, arm in arms}


# --- study 4: a healthy net -------------------------------------------------------------------------------------------


def healthy_net(seeds: int, first: int, epochs: int = 12) -> dict[str, Any]:
    """Primary outcome: the accuracy on held-out digits at the end. No gain is to be expected; nothing may be lost."""
    arms = {name: STEP_ARMS[name] for name in ("nothing", "revive by cause", "redo")}
    return {name: [digits_accuracy(first + i, epochs, arm, None) for i in range(seeds)] for name, arm in arms.items()}


# --- tables -----------------------------------------------------------------------------------------------------------


def interval(values: Any, confidence: float = 0.95) -> tuple[float, float]:
    """The mean and the half width of its interval (Student's t over the seeds)."""
    values = np.asarray(values, float)
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    return float(values.mean()), float(half)


def share(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share (Clopper & Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, count, total - count + 1) if count else 0.0
    high = stats.beta.ppf(1 - tail, count + 1, total - count) if count < total else 1.0
    return float(low), float(high)


def table(results: dict[str, Any]) -> str:
    """A row for each arm, with the difference to "nothing" where arms are paired."""
    lines = []
    for name, found in results.items():
        if isinstance(found, dict):
            low, high = share(found["end"], found["nets"])
            text = f"collapsed {found['end'] / found['nets']:6.1%} [{low:.1%}, {high:.1%}], of these born so {found['born']:,}"
        else:
            values = [one["accuracy"] for one in found]
            paired = np.subtract(values, [one["accuracy"] for one in results["nothing"]])
            text = "accuracy {:.3f} ± {:.3f}, against nothing {:+.3f} ± {:.3f}".format(
                *interval(values), *interval(paired)
            )
            text += f", dead {np.mean([one['dead_fraction'] for one in found]):.3f}"
        lines.append(f"{name:38} {text}")
    return "\n".join(lines)


STUDIES: dict[str, Callable[..., dict[str, Any]]] = {
    "birth": collapse_at_birth,
    "step": one_bad_step,
    "healthy": healthy_net,
}


def main() -> None:
    """Runs a study, prints its table and keeps its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--runs", type=int, default=20, help="nets of the study birth, seeds of the others")
    parser.add_argument("--seed", type=int, default=1000, help="the first seed; choices were made on seeds below 1000")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--keep", action="store_true", help="write the results to tests/benchmarks/revival/")
    options = parser.parse_args()
    more = {} if options.epochs is None else {"epochs": options.epochs}
    results = STUDIES[options.study](options.runs, options.seed, **more)
    print(table(results))
    if options.keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{options.study}.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
