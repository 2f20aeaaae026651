"""The private names of Keras that the package relies on: when Keras changes one, the test that is named for it fails."""

import numpy as np
import pytest
import tensorflow as tf
from keras_version import LEGACY

from relu_probe import ReluProbe, measure
from relu_probe.structure.relu_layers import find_relus

pytestmark = pytest.mark.upstream
K, L = tf.keras, tf.keras.layers
X, Y = np.ones((4, 3), "f"), np.ones((4, 1), "f")


def functional():
    x = K.Input((3,), name="x")
    inner = K.Model(z := K.Input((4,)), L.Dense(2, name="inner")(z), name="nested")
    hidden = tf.keras.layers.Dense(4, "relu", name="hidden")(x)
    return K.Model(x, L.Dense(1, name="out")(inner(hidden)), name="outer")


def own_children(layer):
    return list(layer._flatten_layers(recursive=False, include_self=False))


def test_flatten_layers_finds_layers_in_lists_and_dicts():
    class Holder(L.Layer):
        def __init__(self):
            super().__init__()
            self.listed, self.named = [L.Dense(1)], {"a": [L.Dense(2)]}

    holder = Holder()
    assert own_children(holder) == [holder.listed[0], holder.named["a"][0]]
    assert own_children(functional())[-1].name == "out"


def test_operations_has_layers_and_functions_in_order():
    assert hasattr(functional(), "operations") == (not LEGACY)
    if not LEGACY:
        x = K.Input((3,))
        names = [type(operation).__name__ for operation in K.Model(x, K.ops.relu(L.Dense(2)(x))).operations]
        assert names == ["InputLayer", "Dense", "Relu"]


def test_inbound_nodes_lead_back():
    model = functional()
    nodes = [node for node in model.get_layer("out")._inbound_nodes if not node.is_input]
    (tensor,) = tf.nest.flatten(nodes[0].input_tensors)
    history = tensor._keras_history
    assert (history.layer if LEGACY else history.operation).name == "nested"
    assert history.tensor_index == 0
    assert [node.is_input for node in model.get_layer("x")._inbound_nodes] == [True]


def test_nested_outputs_tell_a_functional_model_of_tf_keras():
    assert hasattr(functional(), "_nested_outputs") == LEGACY


def test_modules_tell_which_layers_end_in_their_activation():
    ends = [L.Dense(1), L.EinsumDense("ab,bc->ac", 1), L.Conv1D(1, 1), L.Conv2D(1, 1), L.Conv3D(1, 1)]
    ends += [L.DepthwiseConv2D(1), L.SeparableConv2D(1, 1), L.Conv2DTranspose(1, 1)]
    for layer in ends:
        layer.activation = K.activations.relu
        assert (
            ".layers.core." in type(layer).__module__ + "." or ".layers.convolutional." in type(layer).__module__ + "."
        )
        assert [relu.layer for relu in find_relus(holding(layer))] == [layer]
    for layer in (L.ReLU(), L.Activation("relu"), L.Lambda(tf.nn.relu)):
        assert [relu.layer for relu in find_relus(holding(layer))] == [layer]


def holding(layer):
    """A model of which only the structure is looked at."""
    model = K.Sequential(name="holding")
    model.add(layer)
    return model


def test_state_size_tells_an_rnn_cell():
    for cell in (L.SimpleRNNCell(1), L.GRUCell(1), L.LSTMCell(1), L.StackedRNNCells([L.GRUCell(1)])):
        assert hasattr(cell, "state_size")
        assert isinstance(L.RNN(cell), L.RNN)


def test_make_train_function_makes_a_new_one_when_forced():
    model = functional()
    model.compile("sgd", "mse")
    model.make_train_function()
    first = model.train_function
    model.make_train_function()
    assert model.train_function is first
    model.make_train_function(force=True)
    assert model.train_function is not first
    assert {"train_function", "test_function", "predict_function"} <= set(vars(model))
    assert ("train_tf_function" in vars(model)) == LEGACY


def test_an_instance_attribute_call_is_what_runs():
    """The whole mechanism: `layer.__dict__["call"]` shadows the class's, in eager and in functional calls."""
    model, seen = functional(), []
    layer = model.get_layer("hidden")
    original = layer.call
    layer.__dict__["call"] = lambda *args, **kwargs: seen.append(1) or original(*args, **kwargs)
    model(X)
    del layer.__dict__["call"]
    model(X)
    assert seen == [1]


def test_tf_keras_calls_a_model_inside_time_distributed_twice():
    """For its mask: its positions count twice there, and half of them without gradient. Dead stays dead."""
    inner = K.Sequential([K.Input((3,)), L.Dense(2, "relu", name="hidden"), L.Dense(1)])
    model = K.Sequential([K.Input((5, 3)), L.TimeDistributed(inner), L.Flatten(), L.Dense(1)])
    model.compile("sgd", "mse")
    probe = ReluProbe(strict=True)
    model.fit(np.ones((4, 5, 3), "f"), Y, verbose=0, callbacks=[probe])
    assert probe.report["hidden"].positions == 4 * 5 * (2 if LEGACY else 1)
    assert measure(model, np.ones((4, 5, 3), "f"))["hidden"].samples == 4
