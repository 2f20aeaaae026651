"""Tests of the cost of the probe that need no clock: numbers of operations, bytes and traces."""

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import ReluProbe
from relu_probe.measuring.counted_train_function import counted_step
from relu_probe.measuring.train_step import training_counters
from relu_probe.structure import relu_function, relu_layers

K, L = tf.keras, tf.keras.layers


def net(depth, width=16):
    return sequential(8, *(L.Dense(width, "relu") for _ in range(depth)), L.Dense(1), optimizer="sgd")


def traced(depth, width=16):
    """Returns the types of the operations in the scope `relu_probe` of one counted training step."""
    model = net(depth, width)
    counters = training_counters(model)
    step = tf.function(counted_step(model.train_step, counters), autograph=False)
    batch = tf.TensorSpec((None, 8)), tf.TensorSpec((None, 1))
    model.optimizer.build(model.trainable_variables)
    graph = step.get_concrete_function(batch).graph
    return [
        op.type for op in graph.get_operations() if "relu_probe" in op.name and op.type not in ("Const", "Placeholder")
    ]


def test_number_of_operations_does_not_grow_with_the_number_of_narrow_layers():
    assert len(traced(1)) <= 19
    assert len(traced(10)) == len(traced(2)) <= 21


@pytest.mark.parametrize(("width", "most"), [(200, 10), (300, 2), (1100, 2)])
def test_each_wide_layer_adds_few_operations(width, most):
    two, four, six = (len(traced(depth, width)) for depth in (2, 4, 6))
    assert (six - four) == (four - two)  # linear in the layers
    assert (four - two) / 2 <= most


def graph_of(counted, jit, *, width=8, layers=12):
    """Returns the graph of a training step with so many convolutions of an image of this width, or of as many dense layers for 1."""
    channels = ([4, 8, 12, 16, 20, 24] * 2)[:layers]
    convolutions = [L.Conv2D(n, 3, padding="same", activation="relu") for n in channels]
    dense = [L.Flatten(), *(L.Dense(256 + n, "relu") for n in channels)]
    hidden = dense if width == 1 else convolutions
    model = K.Sequential([K.Input((width, width, 3)), *hidden, L.Flatten(), L.Dense(1)])
    model.compile("sgd", "mse", jit_compile=jit)
    model.optimizer.build(model.trainable_variables)
    step = counted_step(model.train_step, training_counters(model)) if counted else model.train_step
    batch = tf.TensorSpec((None, width, width, 3)), tf.TensorSpec((None, 1))
    return tf.function(step, autograph=False).get_concrete_function(batch).graph.as_graph_def()


def nodes(counted, jit):
    """Returns the number of graph nodes per layer, functions included."""
    graph = graph_of(counted, jit)
    return (len(graph.node) + sum(len(function.node_def) for function in graph.library.function)) / 12


@pytest.mark.parametrize(("jit", "most"), [(False, 10), (True, 105)])
def test_each_convolution_adds_few_nodes(jit, most):
    """The time of the first step grows with the number of nodes. With XLA, each of the six shapes has its own function."""
    assert 5 < nodes(True, jit) - nodes(False, jit) <= most


@pytest.mark.parametrize(("width", "layers", "inlined"), [(72, 9, False), (72, 8, True), (1, 12, True)])
def test_only_the_counts_of_many_large_images_stay_function_calls(width, layers, inlined):
    """TensorFlow would optimize the 40 nodes of each inlined call again, and all the more if an argument were constant."""
    graph = graph_of(True, False, width=width, layers=layers)
    calls = [node for node in graph.node if node.op.endswith("PartitionedCall") and "relu_probe" in node.name]
    constants = {node.name for node in graph.node if node.op == "Const"}
    (called,) = {node.attr["f"].func.name for node in calls}  # one function for all shapes
    (function,) = [each for each in graph.library.function if each.signature.name == called]
    assert len(calls) == layers
    assert function.attr["_noinline"].b is not inlined
    assert any(node.op == "PlaceholderWithDefault" for node in function.node_def) is not inlined  # hides the shapes
    assert not constants & {name for call in calls for name in call.input}


@pytest.mark.parametrize(("width", "most"), [(1, 44), (1000, 44), (1100, 36)])
def test_bytes_per_neuron(width, most):
    model = net(2, width)
    model.fit(np.ones((16, 8)), np.ones((16, 1)), verbose=0, callbacks=[ReluProbe(activation_sum=True)])
    counters = training_counters(model, activation_sum=True)
    size = sum(v.dtype.size * v.shape.num_elements() for v in counters.variables())
    assert size <= most * 2 * width + 72


def test_a_function_is_evaluated_once_in_a_process(monkeypatch):
    evaluations = []
    evaluated = relu_function._evaluated
    monkeypatch.setattr(relu_function, "_evaluated", lambda call: evaluations.append(call) or evaluated(call))
    monkeypatch.setattr(relu_function, "_recognized", {})
    twice = [L.Lambda(lambda z: 2 * z, name=f"twice_{n}") for n in range(5)]  # five functions of one code
    for _ in range(3):
        model = K.Sequential([K.Input((2,)), L.Dense(3, "relu", name="a"), *twice, L.ReLU(name="b"), L.ReLU(name="c")])
        assert [relu.key for relu in relu_layers.find_relus(model)] == ["a", "b"]
    assert len(evaluations) == 3  # relu, 2 * z, ReLU()
