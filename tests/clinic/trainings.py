"""What a case of the clinic is: a small training, what diagnose must say of it, and the advice followed, in code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe import Diagnosis, ReluProbe, diagnose

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
        kinds: kinds of advice that must be given.
        forbidden: kinds that must not be given.
        treat: the changes that follow the advice, nothing else.
        reference: the changes that make a training that is known to be healthy.
        sick_below: the bound of the fraction of dead or blocked neurons after the treatment, for every seed.
    """

    train: Callable[..., Training]
    root: str = ""
    kinds: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    treat: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    sick_below: float = 0.1


def sick(
    root: str, kinds: str, *, forbidden: str = "", sick_below: float = 0.1, reference: Any = None, **treat: Any
) -> Any:
    """Decorator that adds a sick case. `treat` are the changes of the treatment, `reference` by default the same."""

    def add(train: Callable[..., Training]) -> Callable[..., Training]:
        words = (frozenset(kinds.split()), frozenset(forbidden.split()))
        SICK[train.__name__] = Case(train, root, *words, treat, treat if reference is None else reference, sick_below)
        return train

    return add


def healthy(train: Callable[..., Training]) -> Callable[..., Training]:
    """Decorator that adds a healthy case."""
    HEALTHY[train.__name__] = Case(train)
    return train


def run(case: Case, seed: int, changes: Mapping[str, Any]) -> Outcome:
    """Trains one arm of a case and diagnoses it. Arms of one seed begin with the same random numbers."""
    K.backend.clear_session()
    K.utils.set_random_seed(seed)
    training = case.train(seed, **changes)
    data = (training.x, training.y)
    probe = ReluProbe(data=data, at_start=True) if training.at_start else ReluProbe()
    callbacks = [probe, *training.callbacks] if training.has_relu else list(training.callbacks)
    training.model.fit(
        training.x,
        training.y,
        training.batch_size,
        epochs=training.epochs,
        verbose=0,
        callbacks=callbacks,
    )
    if not training.has_relu:
        return Outcome(_loss(training), 0.0, None)
    found = diagnose(training.model, data, probe=probe)
    report = found.report
    fraction = report.zero_gradient_fraction if report.has_gradients else report.dead_fraction
    return Outcome(_loss(training), fraction, found)


def _loss(training: Training) -> float:
    if training.loss is not None:
        return min(training.loss(training.model), training.chance)
    y = training.y if training.test_y is None else training.test_y
    loss = np.ravel(training.model.evaluate(training.x, y, verbose=0))[0]
    return float(min(loss, training.chance)) if np.isfinite(loss) else training.chance
