"""Study 2: slowly changing regression (Dohare et al. 2024, Nature 632:768).

Learners of 5 ReLUs predict, example by example, the output of a fixed net of 100 threshold units. Of its 20 binary inputs 5
are random; 15 change every 10,000 examples. Nets lose the ability to learn in such a task.

Two forms of the task: "flip one", as the paper writes: one of the 15 bits flips, and the thresholds are 0.7 * 21 - S with S
the number of negative weights of a unit; "redraw all", as the authors' code (shibhansh/loss-of-plasticity) has it: all 15
bits are drawn anew, and its S is (20 - sum of the weights + bias) / 2.

Primary outcome: the mean squared error over the last 60,000 examples, of "flip one" at rate 0.01. Primary comparison: `revive`
by cause against nothing.
"""

from typing import Any

import numpy as np
from stacked_nets import OfOneNet, stacked

from relu_probe import revive

INPUTS, SLOW, TARGET_UNITS, HIDDEN, FLIP, BIN, NEWEST = 20, 15, 100, 5, 10_000, 20_000, 2_000
TASKS, RATES = ("flip one", "redraw all"), (0.01, 0.003, 0.001)
# The arms of one model differ in numbers only; each model is trained by itself.
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "relu": {
        "nothing": {},
        "standardised inputs": {"standardised": True},
        "L2 towards the initial weights": {"l2": 1e-3},
        "LeakyReLU": {"slope": 0.1},
    },
    "linear": {"linear": {}},
    "revive": {"revive by cause": {}},
    "redo": {"redo": {"method": "redo"}},
}


class Tasks:
    """The examples of the learners of one model: for each arm, task, rate and seed one.

    Args:
        arms: the arms of the model.
        seeds: the number of seeds; the tasks of a seed are the same in all arms and models.
        first: the first seed.
    """

    def __init__(self, arms: dict[str, dict[str, Any]], seeds: int, first: int) -> None:
        self.names = [(arm, task, rate) for arm in arms for task in TASKS for rate in RATES]
        self.streams = [Stream(task, first + i) for task in TASKS for i in range(seeds)]
        of_name = [TASKS.index(task) * seeds + np.arange(seeds) for _, task, _ in self.names]
        self.stream_of = np.concatenate(of_name)  # of each learner
        self.arms, self.seeds = arms, seeds

    def per_learner(self, value: Any) -> Any:
        """`(learners,)` float32: the value of a function of arm and rate."""
        values = [value(self.arms[arm], rate) for arm, _, rate in self.names]
        return np.repeat(np.array(values, np.float32), self.seeds)

    def next(self, examples: int) -> tuple[Any, Any]:
        """The next examples: `(examples, inputs, streams)` and `(examples, streams)`."""
        found = [stream.next(examples) for stream in self.streams]
        return np.stack([x for x, _ in found], -1).astype(np.float32), np.stack([y for _, y in found], -1).astype(
            np.float32
        )


class Stream:
    """The examples of one task and seed."""

    def __init__(self, task: str, seed: int) -> None:
        self.task, self.rng, self.seen = task, np.random.default_rng(seed), 0
        signs = self.rng.integers(0, 2, (INPUTS + 2, TARGET_UNITS)) * 2.0 - 1  # weights, bias and outgoing weight
        self.weights, self.bias, self.out = signs[:INPUTS], signs[INPUTS], signs[INPUTS + 1]
        negative = (self.weights < 0).sum(axis=0) + (self.bias < 0)
        theirs = (INPUTS - self.weights.sum(axis=0) + self.bias) / 2
        self.threshold = 0.7 * (INPUTS + 1) - (negative if task == "flip one" else theirs)
        self.slow, self.shift = self._bits(SLOW), self.rng.integers(0, 2) * 2.0 - 1

    def next(self, examples: int) -> tuple[Any, Any]:
        """`(examples, 20)` and `(examples,)`; `examples` divides 10,000."""
        if self.seen and self.seen % FLIP == 0:
            self._change()
        self.seen += examples
        x = np.concatenate([np.tile(self.slow, (examples, 1)), self._bits((examples, INPUTS - SLOW))], 1)
        fires = x @ self.weights + self.bias > self.threshold
        return x, fires @ self.out + self.shift

    def _change(self) -> None:
        if self.task == "flip one":
            self.slow[self.rng.integers(0, SLOW)] ^= 1
        else:
            self.slow = self._bits(SLOW)

    def _bits(self, shape: Any) -> Any:
        return self.rng.integers(0, 2, shape, np.int8)


def run(seeds: int, first: int, *, examples: int = 200_000, arms: dict[str, Any] = MODELS) -> dict[str, Any]:
    """Returns "arm, task, rate" -> for each seed the mean squared error of each bin of 20,000 examples."""
    results = {}
    for kind, of_model in arms.items():
        tasks = Tasks(of_model, seeds, first)
        errors = _learn(kind, tasks, examples, first)
        errors = errors.reshape(len(errors), len(tasks.names), seeds)
        for i, name in enumerate(tasks.names):
            results[" | ".join(map(str, name))] = np.round(errors[:, i].T, 4).tolist()
    return results


def _learn(kind: str, tasks: Tasks, examples: int, seed: int) -> Any:
    """`(bins, learners)`, the mean squared errors before each update."""
    model = _learners(kind, tasks, seed)
    update = PlainSgd(model, tasks)
    errors = []
    for _ in range(examples // NEWEST):
        x, y = tasks.next(NEWEST)
        errors.append(update(x, y))
        if kind in ("revive", "redo"):
            (options,) = tasks.arms.values()
            newest = np.moveaxis(x[..., tasks.stream_of], 1, 2)
            update.write(model)
            revive(model, newest, batch_size=NEWEST, seed=seed + len(errors), **options)
            update.read(model)
    return np.mean(np.reshape(errors, (-1, BIN // NEWEST, len(errors[0]))), axis=1)


def _learners(kind: str, tasks: Tasks, seed: int) -> Any:
    """The learners of one model. Those of the same seed begin with the same weights in all arms, tasks and rates."""
    kernels, units = [OfOneNet("he_uniform", seed), OfOneNet("linear_uniform", seed + 1)], [HIDDEN, 1]
    if kind == "linear":
        kernels, units = kernels[1:], units[1:]
    model = stacked(len(tasks.names) * tasks.seeds, INPUTS, units, "relu", kernels)
    for layer, initializer in zip(model.layers, kernels):
        drawn = np.asarray(initializer((tasks.seeds, *layer.kernel.shape[1:]), "float32"))
        layer.kernel.assign(np.tile(drawn, (len(tasks.names), 1, 1)))
    return model


class PlainSgd:
    """Trains the learners by one step of plain SGD for each example. The learners stand on the last axis of all arrays.

    Args:
        model: the learners, with the weights to begin with.
        tasks: of the learners.
    """

    def __init__(self, model: Any, tasks: Tasks) -> None:
        self.stream_of = tasks.stream_of
        self.rates, self.slopes, self.l2 = (
            tasks.per_learner(value)
            for value in (
                lambda arm, rate: rate,
                lambda arm, rate: arm.get("slope", 0),
                lambda arm, rate: arm.get("l2", 0),
            )
        )
        self.centred = tasks.per_learner(lambda arm, rate: arm.get("standardised", False)) > 0
        self.read(model)
        self.initial = [weight.copy() for weight in self.weights]

    def read(self, model: Any) -> None:
        """Takes the weights of the model."""
        self.weights = [np.ascontiguousarray(np.moveaxis(weight, 0, -1)) for weight in model.get_weights()]

    def write(self, model: Any) -> None:
        """Gives the weights to the model."""
        model.set_weights([np.moveaxis(weight, -1, 0) for weight in self.weights])

    def __call__(self, x: Any, y: Any) -> Any:
        """`(learners,)`, the mean squared errors before the updates. x: `(examples, inputs, streams)`; y: `(examples, streams)`."""
        total = np.zeros(len(self.stream_of))
        for bits, target in zip(x, y):
            inputs = bits[:, self.stream_of]
            total += self._step(np.where(self.centred, 2 * inputs - 1, inputs), target[self.stream_of]) ** 2
        return total / len(x)

    def _step(self, x: Any, y: Any) -> Any:
        """One update; returns the error before it."""
        *hidden, out, shift = self.weights
        activation, at_hidden = x, None
        if hidden:
            z = np.einsum("il,iul->ul", x, hidden[0]) + hidden[1]
            activation = np.where(z > 0, z, self.slopes * z)
            at_hidden = out[:, 0] * np.where(z > 0, 1, self.slopes)
        error = (activation * out[:, 0]).sum(axis=0) + shift[0] - y
        down = -2 * self.rates * error
        if np.any(self.l2):
            for weight, first in zip(self.weights, self.initial):
                np.subtract(weight, 2 * self.rates * self.l2 * (weight - first), out=weight)
        if hidden:
            hidden[0] += x[:, None] * (down * at_hidden)
            hidden[1] += down * at_hidden
        out[:, 0] += down * activation
        shift[0] += down
        return error
