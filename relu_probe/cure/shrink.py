"""`shrink`: the same function in a smaller model, without the neurons that are dead."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from relu_probe.cure.channel_flow import ChannelFlow
from relu_probe.cure.comparison import check_same_function, one_sample, seconds_of_a_prediction
from relu_probe.cure.compilation import compile_like
from relu_probe.cure.cuts import Cuts
from relu_probe.cure.operation import IN_CODE
from relu_probe.cure.plan import tied_weights
from relu_probe.cure.removal import Removal, layer_names, layer_sizes
from relu_probe.cure.shrunk import Indices, Shrunk
from relu_probe.cure.smaller_model import smaller_model
from relu_probe.diagnosis.call_trace import CallTrace, recorded
from relu_probe.diagnosis.diagnose import diagnose
from relu_probe.measuring.data import BatchedData, read_batches
from relu_probe.measuring.inference import call_in_inference, state_restored
from relu_probe.measuring.input_checks import check_built
from relu_probe.measuring.measure import measurer_of
from relu_probe.report.layer_report import Mask
from relu_probe.report.report import Report
from relu_probe.structure.keras_layers import holds_all_calls
from relu_probe.structure.layer_matching import select_layers
from relu_probe.structure.relu_layers import ReluLayer, find_relus
from relu_probe.structure.support import check_model
from relu_probe.utils.foreign_text import shown

Remove = Literal["dead", "certified"]
_UNCERTAIN = "it is dead on the data, and may fire for another input within the bounds"
# The report, for each layer the neurons that need not be there, and why others that are dead are left.
_Found = tuple[Report, Mapping[str, Mask], Mapping[str, Mapping[str, Indices]]]


def shrink(
    model: Any,
    data: Any,
    *,
    bounds: Any = None,
    layers: Any = None,
    remove: Remove = "dead",
    batch_size: int = 32,
) -> Shrunk:
    """Makes a smaller model that computes the same without the dead neurons.

    A unit of a linear layer is removed if everything behind it receives a constant from it, which is 0 behind a dead ReLU.
    Another constant, which BatchNormalization makes of that 0, is added to the next bias where that is exact. The weights,
    the names and the compilation are kept, and the optimizer continues from the same state. `model` is not changed.

    Args:
        model: a functional or Sequential Keras model.
        data: the same types as for `measure`.
        bounds: for `remove="certified"`: `(low, high)` of the inputs, scalars or arrays of the input's shape.
        layers: names, globs or layer objects of the ReLU layers whose dead neurons are removed; None for all.
        remove: "dead" removes what is dead on `data`: on other data, where such a neuron would fire, the smaller model may
            predict something else. "certified" removes only what no input within `bounds` can make fire, so that both models
            agree on all these inputs.
        batch_size: samples in each step, for arrays.

    Returns:
        A `Shrunk`, with the smaller `model`, the units `removed` from each layer, and what is `left`, with reasons: a neuron
        that is added to others, belongs to an output, or is the last of its layer.

    Raises:
        ValueError: the model is subclassed or cannot be made again from its configuration; remove or bounds is not as
            expected; the data leaves the bounds; or for the reasons for which `measure` raises it.
        RuntimeError: a prediction on the data would differ by more than rounding: by more than 1e-4 of itself and 1e-5 of the
            largest (in half precision 0.02 and 0.02).

    >>> import tensorflow as tf
    >>> bias = tf.keras.initializers.Constant([-100.0, 100.0, 0.0])
    >>> model = tf.keras.Sequential([tf.keras.Input((3,)),
    ...     tf.keras.layers.Dense(3, "relu", bias_initializer=bias, name="hidden"), tf.keras.layers.Dense(1)])
    >>> shrunk = shrink(model, tf.random.normal((100, 3)))
    >>> shrunk.removed["hidden"], shrunk.parameters
    (array([0]), (16, 11))
    """
    _check(model, remove, bounds)
    relus = find_relus(model)
    selected = select_layers(relus, layers, model)
    batches = read_batches(data, batch_size)
    found = _dead(model, batches) if bounds is None else _certified(model, data, bounds, batch_size)
    report, useless, _ = found
    one = one_sample(model, next(iter(batches.dataset))[0])
    removed = {key: useless[key] for key in selected if key in useless}
    flow = ChannelFlow(_trace(model, one), relus, removed, tied_weights(model))
    removal = Removal(flow)
    cuts, names = Cuts(flow, removal.removed, removal.closed), layer_names(model)
    left = removal.left(relus, removed)
    if layers is None:
        left |= _in_code(report, relus)
    return Shrunk(
        removed=removal.units(names),
        left=_with_uncertain(left, found),
        report=report,
        sizes=layer_sizes(flow, cuts, names),
        **_made(model, cuts, one, batches),
    )


def _made(model: Any, cuts: Cuts, one: Any, batches: BatchedData) -> dict[str, Any]:
    """Makes the smaller model, checks and times it; returns what `Shrunk` says of it."""
    with state_restored(model):
        new = smaller_model(model, cuts, one)
        reset = compile_like(new, model, cuts)
        with state_restored(new):
            difference = check_same_function(model, new, batches)
            seconds = seconds_of_a_prediction(model, new, next(iter(batches.dataset))[0])
    return {
        "model": new,
        "seconds": seconds,
        "largest_difference": difference,
        "parameters": (model.count_params(), new.count_params()),
        "optimizer_reset": reset,
    }


def _in_code(report: Report, relus: list[ReluLayer]) -> dict[str, dict[str, Indices]]:
    """Returns the dead neurons of ReLUs that are written as functions: they are left."""
    known = {relu.key for relu in relus}
    dead = {key: np.flatnonzero(report[key].dead) for key in report if key not in known}
    return {key: {IN_CODE: neurons} for key, neurons in dead.items() if len(neurons)}


def _with_uncertain(left: Mapping[str, Mapping[str, Indices]], found: _Found) -> dict[str, dict[str, Indices]]:
    """Adds the neurons that are not certain to be dead, and puts the layers in the report's order."""
    report, _, uncertain = found
    every = {key: {**left.get(key, {}), **uncertain.get(key, {})} for key in report}
    return {key: each for key, each in every.items() if each}


def _check(model: Any, remove: str, bounds: Any) -> None:
    check_model(model)
    check_built(model)
    if not holds_all_calls(model):
        raise ValueError(
            f"model {shown(repr(model.name))} is a {shown(type(model).__name__)}, a subclassed model, whose code may use its "
            "layers in any way; expected a functional or Sequential model."
        )
    if model.distribute_strategy.num_replicas_in_sync > 1:
        raise ValueError(
            f"the model was made under {type(model.distribute_strategy).__name__}; expected a model made outside of it. Save "
            "it, and load it outside of the strategy."
        )
    if remove not in ("dead", "certified"):
        raise ValueError(f'remove is {remove!r}; expected "dead" or "certified".')
    if (remove == "certified") != (bounds is not None):
        given = "without bounds" if bounds is None else "with bounds"
        raise ValueError(
            f'remove is {remove!r} {given}; expected remove="certified" and bounds=(low, high) together, or neither.'
        )


def _dead(model: Any, batches: BatchedData) -> _Found:
    """Returns what is dead on the data: all of it can be removed."""
    report = measurer_of(model).run(batches)
    return report, {key: report[key].dead for key in report}, {}


def _certified(model: Any, data: Any, bounds: Any, batch_size: int) -> _Found:
    """Returns what no input within the bounds makes fire."""
    found = diagnose(model, data, batch_size=batch_size, bounds=bounds)
    if found.bounds_left:
        raise ValueError(f"{found.bounds_left} Expected data within the bounds. Pass wider bounds.")
    certified = {key: layer.certified for key, layer in found.layers.items() if layer.certified is not None}
    uncertain = {}
    for key, mask in certified.items():
        stopped = found.layers[key].bounds_stopped_at
        why = f"the bounds could not be carried through {stopped}" if stopped else _UNCERTAIN
        if np.any(left := found.report[key].dead & ~mask):
            uncertain[key] = {why: np.flatnonzero(left)}
    return found.report, certified, uncertain


def _trace(model: Any, x: Any) -> CallTrace:
    with state_restored(model), recorded(model) as trace:
        call_in_inference(model, x)
    return trace
