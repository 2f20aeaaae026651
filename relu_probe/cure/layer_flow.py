"""What each kind of layer makes of the units that its input carries, before its activation."""

from typing import Any

import numpy as np

from relu_probe.cure.constants import pads
from relu_probe.cure.flow import Flow, channel_axis
from relu_probe.diagnosis.call_trace import TracedCall
from relu_probe.diagnosis.consumers import NotVisible, moved_sources, neuron_numbers
from relu_probe.diagnosis.pre_activation import IDENTITY, batch_norm
from relu_probe.structure.keras_layers import keras_class, output_activation
from relu_probe.structure.weight_layout import NO_SOURCE, depthwise_kernel


def concatenated(call: TracedCall, flows: list[Flow]) -> Flow:
    """The flow behind a Concatenate, of the flows of its inputs."""
    starts = np.cumsum([0, *(len(flow.unit) for flow in flows)])
    parts = [np.where(f.channels == NO_SOURCE, NO_SOURCE, f.channels + i) for f, i in zip(flows, starts)]
    axis = call.layer.axis % (parts[0].ndim + 1) - 1
    unit, value = (np.concatenate(each) for each in zip(*(flow[1:] for flow in flows)))
    return Flow(np.concatenate(parts, axis), unit, value)


def moved(call: TracedCall, flow: Flow) -> Flow | None:
    """The flow behind a layer without weights; None if it is not known to leave each value alone."""
    name = keras_class(call.layer)
    if name in (*IDENTITY, "Activation") or output_activation(call.layer) is call.layer:
        return flow
    if name == "Reshape" and tuple(call.layer.target_shape) != (-1,):
        return None
    try:
        return flow._replace(channels=moved_sources(call, call.inputs[0], flow.channels))
    except NotVisible:
        return None


def normalized(call: TracedCall, received: Flow) -> Flow | None:
    """The flow behind a BatchNormalization, which receives one channel for each index of its axis."""
    (axis,) = np.ravel(call.layer.axis).tolist()
    folded = batch_norm(call.layer, axis, call.output.shape.rank)
    return None if folded is None else received._replace(value=folded[0] * received.value + folded[1])


def why_fixed(layer: Any) -> str:
    """Why a linear layer cannot have fewer units, as the end of a sentence about a neuron; "" if it can."""
    if getattr(layer, "quantization_mode", None) is not None:
        return f"the weights of {layer.name} are quantized"
    if getattr(layer, "lora_enabled", False):
        return f"{layer.name} adds other weights to its kernel (LoRA)"
    in_groups = getattr(layer, "groups", 1) > 1 and not keras_class(layer).startswith("Depthwise")
    return f"{layer.name} is a convolution in groups, which have equally many units" if in_groups else ""


def convolved_by_depth(call: TracedCall, received: Flow) -> Flow:
    """The flow behind a depthwise convolution. What it pads with zeros is no constant, unless it is 0."""
    layer = call.layer
    kernel = np.asarray(depthwise_kernel(layer), np.float64)
    sums = kernel.sum(axis=tuple(range(kernel.ndim - 2)))  # (inputs, outputs of each)
    varies = pads(layer) & (received.value != 0)
    value = np.where(varies[:, None], np.nan, received.value[:, None] * sums).reshape(-1)
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0
    channels = neuron_numbers(tuple(call.output.shape[1:]), channel_axis(layer))
    return Flow(channels, np.repeat(received.unit, kernel.shape[-1]), value + bias)
