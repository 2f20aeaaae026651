"""Which weight connects which input with which unit, against the derivatives of the layers themselves."""

import numpy as np
import pytest
import tensorflow as tf

from relu_probe.structure.weight_layout import (
    ALL_UNITS,
    bias_units,
    incoming_weights,
    input_axis,
    outgoing_weights,
    unit_axis,
)

L = tf.keras.layers
LAYERS = {
    "Dense": (lambda: L.Dense(3), (4,)),
    "Dense on sequences": (lambda: L.Dense(3), (2, 4)),
    "Conv1D": (lambda: L.Conv1D(3, 2, padding="causal"), (5, 4)),
    "Conv2D": (lambda: L.Conv2D(3, 2, padding="same", strides=2), (4, 5, 4)),
    "Conv2D in groups": (lambda: L.Conv2D(6, 2, groups=2), (4, 4, 4)),
    "Conv3D": (lambda: L.Conv3D(2, 2), (3, 3, 3, 4)),
    "Conv1DTranspose": (lambda: L.Conv1DTranspose(3, 2), (3, 4)),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(3, 2, strides=2), (3, 3, 4)),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(2, depth_multiplier=2), (4, 4, 4)),
    "SeparableConv2D": (lambda: L.SeparableConv2D(3, 2), (4, 4, 4)),
    "EinsumDense": (lambda: L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), (2, 4)),
    "EinsumDense, heads": (lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), (2, 4)),
    "EinsumDense, stacked nets": (lambda: L.EinsumDense("bni,nio->bno", (2, 3), bias_axes="no"), (2, 4)),
    "EinsumDense, transposed": (lambda: L.EinsumDense("abc,dc->adb", (3, 2), bias_axes="d"), (2, 4)),
    "EinsumDense, ...": (lambda: L.EinsumDense("...x,xy->...y", 3, bias_axes="y"), (2, 4)),
}
UNIT_AXES = {"EinsumDense, heads": (-2, -1), "EinsumDense, stacked nets": (-2, -1), "EinsumDense, transposed": (1,)}


def sources_of(name, shape):
    """Inputs are numbered by channel; of the stacked nets, each net and channel has a number of its own."""
    if name == "EinsumDense, stacked nets":
        return np.arange(8).reshape(2, 4)
    return np.broadcast_to(np.array([0, 1, -1, 1]), shape)


def depends(layer, variable, x, axes):
    """`(units, *kernel)` bool: whether a weight changes the sum of a unit's outputs on positive inputs."""
    with tf.GradientTape(persistent=True) as tape:
        output = layer(tf.constant(x))
        axes = [axis % len(output.shape) for axis in axes]
        others = [i for i in range(len(output.shape)) if i not in axes]
        sums = tf.reshape(
            tf.reduce_sum(tf.transpose(output, [*axes, *others]), range(len(axes), len(output.shape))), [-1]
        )
        units = tf.unstack(sums)
    value = variable if isinstance(variable, tf.Variable) else variable.value  # Keras 3's variables hold TensorFlow's
    return np.stack([np.asarray(tape.gradient(unit, value)) != 0 for unit in units])


@pytest.mark.parametrize("name", LAYERS)
def test_the_layout_equals_the_derivatives_of_the_layer(name):
    make, shape = LAYERS[name]
    layer, sources = make(), sources_of(name, shape)
    x = np.random.default_rng(0).uniform(1, 2, (2, *shape)).astype("float32")
    layer(x)
    axes = UNIT_AXES.get(name, (-1,))
    found = outgoing_weights(layer, sources)
    source, unit = (np.broadcast_to(layout, found.variable.shape) for layout in found[1:3])
    for number in np.unique(sources):
        seen = depends(layer, found.variable, x * (sources == number), axes)
        leads = (unit == np.arange(found.units).reshape(-1, *[1] * unit.ndim)) | (unit == ALL_UNITS)
        assert np.array_equal(seen, leads & (source == number))
    kernel, incoming = incoming_weights(layer)
    seen = depends(layer, kernel, x, axes)
    units = np.arange(found.units).reshape(-1, *[1] * len(kernel.shape))
    assert np.array_equal(seen, np.broadcast_to(incoming == units, seen.shape))
    bias, unit = bias_units(layer, found.units)
    seen = depends(layer, bias, x, axes)
    assert np.array_equal(seen, unit == np.arange(found.units).reshape(-1, *[1] * unit.ndim))


@pytest.mark.parametrize("name", LAYERS)
def test_inputs_and_units_lie_along_the_axis_along_which_the_layout_varies(name):
    make, shape = LAYERS[name]
    layer = make()
    layer(np.ones((2, *shape)))
    numbers = np.broadcast_to(np.arange(shape[-1]), shape)
    if "Depthwise" not in name:
        assert unit_axis(layer) == varying(incoming_weights(layer)[1])
    if name not in ("Conv2D in groups", "EinsumDense, stacked nets"):
        assert input_axis(layer) == varying(outgoing_weights(layer, numbers).source)


def varying(layout):
    """The axis of a layout that has more than one size, counted from the end; None if several have."""
    axes = [axis - layout.ndim for axis, size in enumerate(layout.shape) if size > 1]
    return axes[0] if len(axes) == 1 else None


def test_flattened_positions_are_tiled_not_repeated():
    """Channel c of a flattened image has the rows c + C * k."""
    layer = L.Dense(2)
    layer(np.zeros((1, 6)))
    tiled = outgoing_weights(layer, np.array([0, 1, 0, 1, 0, 1])).source[:, 0].tolist()
    assert tiled == [0, 1, 0, 1, 0, 1]
    assert tiled != np.repeat([0, 1], 3).tolist()  # the planted mistake


@pytest.mark.parametrize(
    ("make", "sources"),
    [
        (lambda: L.Dense(3), np.array([[0, 1], [1, 0]])),  # one weight for two neurons
        (L.LayerNormalization, np.array([0, 1])),
        (lambda: L.EinsumDense("ab,ab->ab", 2), np.array([0, 1])),  # a weight for each sample of the batch
    ],
)
def test_what_is_not_known_is_none(make, sources):
    layer = make()
    layer(np.zeros((2, *sources.shape)))
    assert outgoing_weights(layer, sources) is None


@pytest.mark.skipif(not hasattr(L.Dense, "enable_lora"), reason="tf_keras has no LoRA")
def test_a_layer_with_lora_is_not_known():
    layer = L.Dense(3)
    layer(np.zeros((2, 4)))
    layer.enable_lora(1)
    assert incoming_weights(layer) is None
