"""`revive`: brings dead neurons back without a change of the predictions on the data."""

from typing import Any

import numpy as np
import tensorflow as tf

from relu_probe.cure.operation import Method, Operation, Options, untouched_layers
from relu_probe.cure.optimizer_slots import check_optimizer
from relu_probe.cure.revival import Revival
from relu_probe.measuring.data import BatchedData, read_batches
from relu_probe.measuring.measure import measurer_of
from relu_probe.structure.layer_matching import select_layers
from relu_probe.structure.relu_layers import find_relus
from relu_probe.structure.support import check_model
from relu_probe.utils.distributed import has_several_workers


def revive(
    model: Any,
    data: Any,
    *,
    layers: Any = None,
    method: Method = "cause",
    fire: float = 0.5,
    confidence: float = 0.95,
    min_rate: float = 0.05,
    validation: Any = None,
    seed: int | None = None,
    batch_size: int = 32,
) -> Revival:
    """Brings the neurons that are dead on `data` back, so that they fire and can learn again.

    No prediction on the data changes: what a revived neuron leads to becomes zero, and gets a gradient at the next step. The
    optimizer's slots of all touched weights get their initial values. If anything fails, everything is as before.

    Args:
        model: a built functional or Sequential Keras model. What stands in code of your own is left as it is, by name.
        data: the same types as for `measure`. It must have so many samples that a neuron which fires on `min_rate` of
            samples like these is, with probability `confidence`, not dead on them.
        layers: names, globs or layer objects; None for every ReLU layer.
        method: "cause" changes what the cause of the death asks for: the bias is raised; weights are drawn anew if they are
            zero, far too large, or the cause themselves (without a bias their sign is flipped); BatchNormalization before
            the ReLU gets the statistics of the data. "redo" draws all incoming weights by the layer's initialiser and sets
            the bias to 0 (Sokar et al. 2023, arXiv:2302.12902).
        fire: the share of positions at which a revived neuron fires, with method "cause"; 0 < fire <= 1.
        confidence, min_rate: see `data`; both between 0 and 1.
        validation: other data, on which the largest change of a prediction is reported.
        seed: of the weights that are drawn; None for other weights at each call.
        batch_size: samples in each step, for arrays.

    Returns:
        A `Revival`, with what was done and what was left, and `undo()`.

    Raises:
        ValueError: an argument is out of range, the data has too few samples, the optimizer's slots are not known, or for
            the reasons for which `measure` raises it.
        RuntimeError: a prediction on the data would have changed. Everything is as before.

    >>> import tensorflow as tf
    >>> bias = tf.keras.initializers.Constant([-100.0, 100.0])
    >>> model = tf.keras.Sequential([tf.keras.Input((3,)),
    ...     tf.keras.layers.Dense(2, "relu", bias_initializer=bias, name="hidden"), tf.keras.layers.Dense(1)])
    >>> x = tf.random.normal((100, 3))
    >>> revival = revive(model, x)
    >>> revival.before["hidden"].activation_rate, revival.after["hidden"].activation_rate
    (array([0., 1.]), array([0.5, 1. ]))
    """
    options = Options(layers, method, fire, confidence, min_rate, seed, batch_size)
    options.check()
    return run(model, data, validation, options)


def run(model: Any, data: Any, validation: Any, options: Options) -> Revival:
    """`revive` with checked options, whose seed may be several numbers."""
    batches = checked_data(model, data, options)
    held_out = None if validation is None else read_batches(validation, options.batch_size)
    before = measurer_of(model).run(batches)
    relus = find_relus(model)
    selected = [key for key in select_layers(relus, options.layers, model) if key in before.layers]
    options.check_samples(before.samples, [before[key].neurons for key in selected])
    if not any(np.any(before[key].dead) for key in selected):
        layers = untouched_layers(before, selected, relus, options)
        return Revival({key: layer for key, layer in layers.items() if layer.left}, before, before)
    return Operation(model, batches, before, selected, options).run(held_out)


def checked_data(model: Any, data: Any, options: Options) -> BatchedData:
    """The data in batches.

    Raises:
        TypeError, ValueError: the model, its optimizer or the data is not supported.
    """
    check_model(model)
    if has_several_workers(model.distribute_strategy):
        raise ValueError(
            f"the model is trained by several workers, under {type(model.distribute_strategy).__name__}, and reviving runs in "
            "one; expected a model of one worker. Revive a copy of it outside of the strategy."
        )
    check_optimizer(model)
    return read_batches(data, options.batch_size)


def check_before_fit(model: Any, data: Any, options: Options) -> None:
    """Checks before the first step what `run` checks, as far as it can be known.

    Raises:
        TypeError, ValueError: as `run` does.
    """
    batches = checked_data(model, data, options)
    relus = find_relus(model)
    widths = {relu.key: relu.width() for relu in relus}
    selected = select_layers(relus, options.layers, model)
    samples = sum(int(tf.shape(tf.nest.flatten(batch)[0])[0]) for batch in batches.dataset)
    options.check_samples(samples, [widths[key] for key in selected])
