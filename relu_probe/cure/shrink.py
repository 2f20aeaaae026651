"""`shrink`: the same function in a smaller model, without the neurons that are dead."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from relu_probe.cure.channel_flow import ChannelFlow
from relu_probe.cure.comparison import check_same_function, seconds_of_a_prediction
from relu_probe.cure.cuts import Cuts
from relu_probe.cure.plan import tied_weights
from relu_probe.cure.shrunk import Indices, LayerSize, Shrunk
from relu_probe.cure.smaller_model import compile_like, smaller_model
from relu_probe.diagnosis.call_trace import CallTrace, recorded
from relu_probe.diagnosis.diagnose import diagnose
from relu_probe.measuring.data import BatchedData, read_batches
from relu_probe.measuring.inference import call_in_inference, state_restored
from relu_probe.measuring.measure import measurer_of
from relu_probe.report.layer_report import Mask
from relu_probe.report.report import Report
from relu_probe.structure.keras_layers import holds_all_calls, locate_layers
from relu_probe.structure.relu_layers import ReluLayer, find_relus, select_layers
from relu_probe.structure.support import check_model
from relu_probe.structure.weight_layout import NO_SOURCE
from relu_probe.utils.foreign_text import shown
from relu_probe.utils.layer_names import unique

Remove = Literal["dead", "certified"]
_HIDDEN = "its layer is of an unknown kind, or is called inside another layer"
_SEVERAL_AXES = "its neurons are several axes of its output"
_NO_UNITS = "its input is not the output of one linear layer alone"
_LAST = "it stays, because its layer keeps at least one unit; the weights behind it are zero now"


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
    batches = read_batches(data, batch_size)
    if bounds is None:
        report, useless = _dead_neurons(model, batches)
    else:
        report, useless = _certified_neurons(model, data, bounds, batch_size)
    relus, first = find_relus(model), next(iter(batches.dataset))[0]
    useless = {key: useless[key] for key in select_layers(relus, layers, model) if key in useless}
    one = tf.nest.map_structure(lambda t: t[:1], first)
    flow = ChannelFlow(_trace(model, one), relus, useless, tied_weights(model))
    removed, closed = _removable(flow)
    cuts = Cuts(flow, removed, closed)
    with state_restored(model):
        new = smaller_model(model, cuts, one)
        difference = check_same_function(model, new, batches)
        reset = compile_like(new, model, cuts)
        seconds = seconds_of_a_prediction(model, new, first)
    names = _names(model)
    return Shrunk(
        model=new,
        removed=_removed_units(flow, removed, names),
        left=_left(
            flow, {relu.key: (relu, useless[relu.key]) for relu in relus if relu.key in useless}, removed, closed
        ),
        report=report,
        sizes=_sizes(flow, cuts, names),
        seconds=seconds,
        largest_difference=difference,
        parameters=(model.count_params(), new.count_params()),
        optimizer_reset=reset,
    )


def _check(model: Any, remove: str, bounds: Any) -> None:
    check_model(model)
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


def _dead_neurons(model: Any, batches: BatchedData) -> tuple[Report, Mapping[str, Mask]]:
    """The report on the data, and for each layer the neurons that are dead on it."""
    report = measurer_of(model).run(batches)
    return report, {key: report[key].dead for key in report}


def _certified_neurons(model: Any, data: Any, bounds: Any, batch_size: int) -> tuple[Report, Mapping[str, Mask]]:
    """The report on the data, and for each layer the neurons that no input within the bounds makes fire."""
    found = diagnose(model, data, batch_size=batch_size, bounds=bounds)
    if found.bounds_left:
        raise ValueError(f"{found.bounds_left} Expected data within the bounds. Pass wider bounds.")
    certified = {key: layer.certified for key, layer in found.layers.items() if layer.certified is not None}
    return found.report, certified


def _trace(model: Any, x: Any) -> CallTrace:
    with state_restored(model), recorded(model) as trace:
        call_in_inference(model, x)
    return trace


def _removable(flow: ChannelFlow) -> tuple[Mask, Mask]:
    """`(units,)` bool each: the units to remove, and those that stay because they are the last of their layer."""
    removed, closed = np.ones(flow.size, bool), np.zeros(flow.size, bool)
    removed[list(flow.blocked)] = False
    starts = [first for _, first in flow.producers.values()]
    for first, end in zip(starts, [*starts[1:], flow.size]):
        if removed[first:end].all():
            removed[first], closed[first] = False, True
    return removed, closed


# --- the result -------------------------------------------------------------------------------------------------------


def _names(model: Any) -> dict[int, str]:
    located = locate_layers(model)
    return dict(zip((id(each.layer) for each in located), unique([each.path for each in located])))


def _removed_units(flow: ChannelFlow, removed: Mask, names: dict[int, str]) -> dict[str, Indices]:
    starts = [first for _, first in flow.producers.values()]
    each = {
        names[key]: np.flatnonzero(removed[first:end])
        for key, first, end in zip(flow.producers, starts, [*starts[1:], flow.size])
    }
    return {name: units for name, units in each.items() if len(units)}


def _left(
    flow: ChannelFlow, useless: Mapping[str, tuple[ReluLayer, Mask]], removed: Mask, closed: Mask
) -> dict[str, dict[str, Indices]]:
    """Name of a layer -> reason -> the neurons that are still there."""
    found: dict[str, dict[str, list[int]]] = {}
    for key, (relu, mask) in useless.items():
        calls = flow.neurons.get(key, [])
        for neuron in np.flatnonzero(mask):
            stays = [int(units[neuron]) for units in calls if units[neuron] == NO_SOURCE or not removed[units[neuron]]]
            if stays or not calls:
                why = _why_left(flow, closed, stays[0]) if calls else _SEVERAL_AXES if relu.flattened else _HIDDEN
                found.setdefault(key, {}).setdefault(why, []).append(int(neuron))
    return {key: {why: np.array(neurons) for why, neurons in reasons.items()} for key, reasons in found.items()}


def _why_left(flow: ChannelFlow, closed: Mask, unit: int) -> str:
    return _NO_UNITS if unit == NO_SOURCE else _LAST if closed[unit] else flow.blocked[unit]


def _sizes(flow: ChannelFlow, cuts: Cuts, names: dict[int, str]) -> tuple[LayerSize, ...]:
    layers = dict.fromkeys(
        [*(layer for layer, _ in flow.producers.values()), *(u[0].call.layer for u in flow.uses.values())]
    )
    order = list(names)
    found = []
    for layer in sorted(layers, key=lambda layer: order.index(id(layer))):
        before = sum(int(np.prod(weight.shape)) for weight in layer.weights)
        after = sum(int(np.prod(cuts.of(weight).shape)) for weight in layer.weights)
        if after < before:
            found.append(LayerSize(names[id(layer)], cuts.units(layer), (before, after)))
    return tuple(found)
