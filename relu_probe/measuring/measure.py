"""The function `measure`: a model's dead ReLUs on given data, weights frozen."""

from typing import Any

from relu_probe.measuring.data import read_batches
from relu_probe.measuring.input_checks import check_built
from relu_probe.measuring.measurer import Measurer, Verbosity
from relu_probe.measuring.model_state import ModelState
from relu_probe.measuring.nothing_counted import warn_if_nothing_is_counted
from relu_probe.report.report import Report
from relu_probe.structure.layer_matching import select_before_a_step, select_layers
from relu_probe.structure.support import check_model


def measure(
    model: Any,
    data: Any,
    *,
    batch_size: int = 32,
    max_samples: int | None = None,
    layers: Any = None,
    verbose: Verbosity = 0,
) -> Report:
    """Counts which ReLUs of `model` fire on `data`, and through which a gradient flows.

    One pass over the data, weights frozen, inference mode. Metrics and seed states are restored. The gradient is that of
    the compiled loss with respect to the pre-activations, whether or not the weights before them are frozen.

    Args:
        model: a built Keras model. Without a compiled loss only the activations are counted.
        data: x, `(x,)`, `(x, y)` or `(x, y, sample_weight)` as arrays (a list or dict is x), a batched
            `tf.data.Dataset`, or a `PyDataset`. x alone: activations only, `with_gradient` is None.
        batch_size: samples in each step, for arrays. The counts do not depend on it.
        max_samples: stop after exactly this number of samples.
        layers: names, globs or layer objects; a layer of a nested model by its path, such as "encoder/*"; None for every
            ReLU layer.
        verbose: 0 is silent, 1 or "auto" shows Keras's progress bar, 2 prints one line.

    Returns:
        A `Report` with source "measure". If no ReLU of the model can be counted, it has no layers, `unseen` has the
        reasons, and a warning says so.

    Raises:
        ValueError: the model is unbuilt or has no ReLU, `layers` names none, or the data is empty, infinite or does
            not fit the model.

    >>> import tensorflow as tf
    >>> bias = tf.keras.initializers.Constant([-100.0, 100.0])
    >>> model = tf.keras.Sequential(
    ...     [tf.keras.Input((3,)), tf.keras.layers.Dense(2, "relu", bias_initializer=bias, name="hidden")])
    >>> report = measure(model, tf.zeros((8, 3)))
    >>> report["hidden"].dead
    array([ True, False])
    """
    check_model(model)
    measurer = measurer_of(model)
    select_before_a_step(list(measurer.counters.relus.values()), layers, model)
    report = measurer.run(read_batches(data, batch_size, max_samples), verbose)
    warn_if_nothing_is_counted(report)
    if layers is None:
        return report
    return report.select(select_layers(measurer.counters.all_relus(), layers, model))


def measurer_of(model: Any) -> Measurer:
    """The model's `Measurer`, kept while its layers, loss and optimizer are the same: each new one traces a new step.

    Raises:
        ValueError: the model is unbuilt or has no ReLU.
    """
    check_built(model)
    state = ModelState.of(model)
    if state.measurer is None or not state.measurer.is_current(model):
        state.measurer = Measurer(model)
    return state.measurer
