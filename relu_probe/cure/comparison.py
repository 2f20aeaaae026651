"""The comparison of a model with a smaller one: their predictions, and how long each takes."""

import time
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from relu_probe.cure.forward_pass import outputs_of
from relu_probe.diagnosis.call_trace import recorded
from relu_probe.measuring.data import BatchedData
from relu_probe.measuring.inference import call_in_inference
from relu_probe.structure.keras_layers import keras_property, symbolic_inputs, visible_layers

Values = NDArray[Any]
_TOLERANCES = (1e-4, 1e-5)  # of the prediction itself, and of the largest one
_HALF_PRECISION = (0.02, 0.02)
_SECONDS, _REPEATS = 1.0, 20  # at most, for timing


def check_same_function(model: Any, new: Any, data: BatchedData) -> float:
    """Checks that both models predict the same on the data, up to rounding.

    Returns:
        The largest absolute difference.

    Raises:
        RuntimeError: they do not. The message says on which sample, and from which layer on.
    """
    relative, absolute = _tolerances(model)
    most = 0.0
    largest, excess = defaultdict[int, float](float), defaultdict[int, float](float)  # by the index of the output
    for batch in data.dataset:  # each batch once: the data may be shuffled at every pass
        for i, (old, made) in enumerate(_both(model, new, batch)):
            most = max(most, float(np.max(_difference(old, made), initial=0)))
            largest[i] = max(largest[i], _size(old))
            excess[i] = max(excess[i], float(np.max(_excess(old, made, relative), initial=0)))
    allowed = {i: absolute * size for i, size in largest.items()}
    if any(excess[i] > allowed[i] for i in allowed):
        raise RuntimeError(
            f"the predictions of the smaller model differ by {most:.3g}, more than by rounding, "
            f"{_where(model, new, data, relative, allowed)} The model is as before. Leave layers out with layers=..."
        )
    return most


def seconds_of_a_prediction(model: Any, new: Any, x: Any) -> tuple[float, float]:
    """The median times of a prediction of `x` by each model, measured in turn, so that both meet the same machine."""
    functions = [tf.function(partial(call_in_inference, each), autograph=False) for each in (model, new)]
    for function in functions:
        function(x)
    times: list[list[float]] = []
    while len(times) < _REPEATS and (len(times) < 3 or np.sum(times) < _SECONDS):
        times.append([_seconds(function, x) for function in functions])
    before, after = np.median(times, axis=0)
    return float(before), float(after)


def _seconds(function: Any, x: Any) -> float:
    start = time.perf_counter()
    for output in tf.nest.flatten(function(x)):
        np.asarray(output)  # waits for a GPU
    return time.perf_counter() - start


def _both(model: Any, new: Any, batch: Any) -> list[tuple[Values, Values]]:
    """The outputs of both models."""
    return list(zip(outputs_of(model, batch), outputs_of(new, batch)))


def _tolerances(model: Any) -> tuple[float, float]:
    types = {keras_property(layer, "compute_dtype") for layer, _ in visible_layers(model)}
    return _HALF_PRECISION if types & {"float16", "bfloat16"} else _TOLERANCES


def _excess(old: Values, new: Values, relative: float) -> Values:
    """By how much the differences are larger than they may be for the size of the prediction itself."""
    return _difference(old, new) - relative * np.abs(_finite(old))


def _finite(values: Values) -> Values:
    return np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)


def _size(values: Values) -> float:
    return float(np.max(np.abs(_finite(values)), initial=0))


def _difference(old: Values, new: Values) -> Values:
    """The absolute differences; 0 between equal infinities and NaNs."""
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    with np.errstate(invalid="ignore"):
        found = np.abs(old.astype(np.float64) - new.astype(np.float64))
    return np.where(same, 0.0, np.nan_to_num(found, nan=np.inf))


def _where(model: Any, new: Any, data: BatchedData, relative: float, allowed: Mapping[int, float]) -> str:
    """The first sample whose predictions differ too much, and from which layer on."""
    for number, batch in enumerate(data.dataset):
        for i, pair in enumerate(_both(model, new, batch)):
            excess = _excess(*pair, relative)
            if np.any(excess > allowed[i]):
                sample = int(np.argmax(excess.reshape(len(excess), -1).max(axis=1)))
                one = one_sample(model, batch[0], sample)
                return (
                    f"in batch {number}, sample {sample}. The first layer of unchanged width with another output is "
                    f"{_first_difference(model, new, one)}."
                )
    return "on a sample that another pass over the data does not show again."


def one_sample(model: Any, x: Any, number: int = 0) -> Any:
    """One sample of a batch; the whole batch for a model that takes no other number of samples."""
    fixed = any(tensor.shape[0] is not None for tensor in symbolic_inputs(model))
    return x if fixed else tf.nest.map_structure(lambda t: t[number : number + 1], x)


def _first_difference(model: Any, new: Any, x: Any) -> str:
    traces = []
    for each in (model, new):
        with recorded(each) as trace:
            call_in_inference(each, x)
        traces.append(trace.calls)
    return next((a.layer.name for a, b in zip(*traces) if _differs(a.output, b.output)), "not found")


def _differs(a: tf.Tensor, b: tf.Tensor) -> bool:
    return a.shape == b.shape and not np.allclose(a, b, rtol=1e-4, atol=1e-5 * _size(np.asarray(a)))
