"""What a case of the clinic is: a small training, what diagnose must say of it, and the advice followed, in code."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe import Diagnosis, ReluProbe, Report, diagnose, measure

K, L = tf.keras, tf.keras.layers
SICK: dict[str, "Case"] = {}
HEALTHY: dict[str, "Case"] = {}


@dataclass
class Training:
    """One training: a compiled model and its data.

    Args:
        model, x, y: the model and its data; the model is diagnosed on that data, too.
        epochs, batch_size: as `fit` takes them.
        callbacks: of the fit, besides the probe.
        at_start: the probe measures the data at the start and after each epoch, in place of the training batches.
        chance: the loss of the best constant prediction; larger and infinite losses count as this.
        loss: of the trained model, if it is not what the model was compiled with.
        has_relu: whether the model has a ReLU; one without is trained and not diagnosed.
        test_y: the labels for the loss of the trained model, if those of the training are broken.
        batches: what `fit` trains on in place of x and y, such as a Dataset.
        loop: trains the model in a loop of its own instead of by `fit`, and returns what a `watch` saw of the last episode.
    """

    model: Any
    x: Any
    y: Any
    epochs: int = 20
    batch_size: int = 32
    callbacks: tuple[Any, ...] = ()
    at_start: bool = False
    chance: float = 0.0
    has_relu: bool = True
    loss: Callable[[Any], float] | None = None
    test_y: Any = None
    batches: Any = None
    loop: Callable[[], Report] | None = None

    @property
    def data(self) -> tuple[Any, ...]:
        """What the model is diagnosed on."""
        return (self.x,) if self.y is None else (self.x, self.y)


@dataclass(frozen=True)
class Outcome:
    """What a training ended with: its loss, the fraction of dead or blocked neurons, and its diagnosis."""

    loss: float
    sick: float
    diagnosis: Diagnosis | None


@dataclass(frozen=True)
class Case:
    """A kind of sick (or healthy) training.

    Args:
        train: `train(seed, **changes) -> Training`; without changes it is the sick one.
        root: the expected `first_sick_layer`; a name that ends in `*` is a prefix, "" any.
        kinds: kinds of advice that must be given; one with a "|" names kinds of which one must be.
        forbidden: kinds that must not be given.
        treat: the changes that follow the advice, nothing else.
        reference: `reference(seed) -> Training`, a network for the same data that was never sick.
        sick_below: the bound of the fraction of dead or blocked neurons after the treatment, for every seed.
    """

    train: Callable[..., Training]
    root: str = ""
    kinds: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    treat: Mapping[str, Any] = field(default_factory=dict)
    reference: Callable[[int], Training] | None = None
    sick_below: float = 0.1


def sick(
    root: str,
    kinds: str,
    *,
    reference: Callable[[int], Training],
    forbidden: str = "",
    sick_below: float = 0.1,
    **treat: Any,
) -> Any:
    """Decorator that adds a sick case. `treat` are the changes of the treatment, the other arguments are those of `Case`."""

    def add(train: Callable[..., Training]) -> Callable[..., Training]:
        words = (frozenset(kinds.split()), frozenset(forbidden.split()))
        SICK[train.__name__] = Case(train, root, *words, treat, reference, sick_below)
        return train

    return add


def healthy(train: Callable[..., Training]) -> Callable[..., Training]:
    """Decorator that adds a healthy case."""
    HEALTHY[train.__name__] = Case(train)
    return train


def run(train: Callable[..., Training], seed: int, changes: Mapping[str, Any], *, diagnosed: bool = True) -> Outcome:
    """Trains one arm of a case. Arms of one seed begin with the same random numbers.

    Args:
        train, seed: of the case.
        changes: the arguments of `train` in this arm.
        diagnosed: whether advice is asked; otherwise it is only measured how much of the model is sick.
    """
    K.backend.clear_session()
    gc.freeze()  # what Keras never releases would make the next `clear_session` slower, arm by arm
    K.utils.set_random_seed(seed)
    training = train(seed, **changes)
    probe = ReluProbe(data=training.data, at_start=True) if training.at_start else ReluProbe()
    watched = training.loop() if training.loop is not None else _fit(training, [probe] if diagnosed else [])
    if not training.has_relu:
        return Outcome(_loss(training), 0.0, None)
    if not diagnosed:
        return Outcome(_loss(training), _sick_fraction(watched or measure(training.model, training.data)), None)
    found = diagnose(training.model, training.data, probe=None if watched else probe)
    return Outcome(_loss(training), _sick_fraction(watched or found.report), found)


def _fit(training: Training, probes: list[Any]) -> None:
    given = training.batches is not None
    data = (training.batches,) if given else (training.x, training.y, training.batch_size)
    callbacks = [*(probes if training.has_relu else ()), *training.callbacks]
    training.model.fit(*data, epochs=training.epochs, verbose=0, shuffle=not given, callbacks=callbacks)


def _sick_fraction(report: Report) -> float:
    return report.zero_gradient_fraction if report.has_gradients else report.dead_fraction


def _loss(training: Training) -> float:
    if training.loss is not None:
        loss = training.loss(training.model)
    else:
        y = training.y if training.test_y is None else training.test_y
        loss = np.mean(K.losses.get(training.model.loss)(y, training.model(training.x)))  # without penalties
    return float(min(loss, training.chance)) if np.isfinite(loss) else training.chance
