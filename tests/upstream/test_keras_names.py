"""The private names of Keras that the package relies on: if Keras changes one, the test named for it fails."""

import random
import sys
from contextlib import ExitStack

import numpy as np
import pytest
import tensorflow as tf
from keras_version import LEGACY

from relu_probe import ReluProbe, measure
from relu_probe.structure.call_owners import is_scratch_graph
from relu_probe.structure.keras_layers import (
    has_running_loss,
    inbound_layers,
    input_casts,
    keras_class,
    logits_of,
    visible_layers,
)
from relu_probe.structure.random_state import random_states_restored
from relu_probe.structure.reachable_variables import reachable_variables
from relu_probe.structure.relu_layers import find_relus
from relu_probe.structure.run_settings import compile_arguments, compile_config, optimizer_parts
from relu_probe.structure.support import is_tf_keras
from relu_probe.structure.train_function import build_train_function, tf_functions, trained_variables
from relu_probe.utils.callback_list import fit_under_way, is_under_way
from relu_probe.utils.instance_patch import patched

pytestmark = pytest.mark.upstream
K, L = tf.keras, tf.keras.layers
X, Y = np.ones((4, 3), "f"), np.ones((4, 1), "f")


def functional():
    x = K.Input((3,), name="x")
    inner = K.Model(z := K.Input((4,)), L.Dense(2, name="inner")(z), name="nested")
    hidden = L.Dense(4, "relu", name="hidden")(x)
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


def test_the_methods_that_cast_the_inputs_of_a_layer():
    layer = L.Dense(1, dtype="mixed_float16")
    model = K.Sequential([K.Input((3,)), L.Dense(2), layer])  # Keras 3.3 casts the inputs of a model itself
    owner, method = next(
        pair for pair in input_casts(model) if pair[0] in (layer, getattr(layer, "dtype_policy", None))
    )
    seen, cast = [], getattr(owner, method)

    def recorded(x, *args):
        seen.append(cast(x, *args))
        return seen[-1]

    with patched(owner, method, recorded):
        model(tf.constant(X))
    assert [tf.nest.flatten(x)[0].dtype for x in seen] == [tf.float16]


@pytest.mark.parametrize("make", [functional, lambda: K.Sequential([K.Input((3,)), L.Dense(2)])])
def test_the_methods_that_cast_the_integers_that_a_model_gets(make):
    model, seen = make(), []
    pairs = [pair for pair in input_casts(model) if pair[1].startswith(("_convert_inputs", "_conform"))]
    with ExitStack() as stack:
        for owner, method in pairs:
            cast = getattr(owner, method)
            stack.enter_context(
                patched(owner, method, lambda x, *a, c=cast, **k: seen.append(c(x, *a, **k)) or seen[-1])
            )
        model(tf.constant(X, tf.uint8))
    assert tf.nest.flatten(seen)[0].dtype == tf.float32


def test_flatten_layers_finds_the_layers_of_nested_models_too():
    names = {layer.name for layer in functional()._flatten_layers(include_self=False)}
    assert {"hidden", "nested", "inner", "out"} <= names
    assert "outer" not in names


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
    assert [layer.name for layer in inbound_layers(model.get_layer("out"))] == ["inner"]


def test_nested_outputs_tell_a_functional_model_of_tf_keras():
    assert hasattr(functional(), "_nested_outputs") == LEGACY


def test_modules_tell_a_functional_model_and_what_keras_defines():
    class Own(K.Model):
        def call(self, x):
            return x

        def train_step(self, data):
            return super().train_step(data)

    assert all(visible for _, visible in visible_layers(functional()))
    assert all(visible for _, visible in visible_layers(K.Sequential([K.Input((3,)), L.Dense(2)])))
    assert "nested" not in [layer.name for layer, _ in visible_layers(functional())]
    assert (has_running_loss(functional()), has_running_loss(Own())) == (True, False)
    assert (keras_class(L.Dense(2)), keras_class(Own())) == ("Dense", "")
    assert is_tf_keras(functional()) == is_tf_keras(Own()) == LEGACY


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


def test_states_of_a_stateful_rnn_are_changed_by_inference():
    model = K.Sequential([K.Input((5, 3), batch_size=4), L.GRU(2, stateful=True), L.Dense(1)])
    (changed,) = [v for v in reachable_variables(model) if tuple(v.shape) == (4, 2)]
    model(np.ones((4, 5, 3), "f"))
    assert np.any(np.asarray(changed) != 0)


def test_the_arguments_of_compile_are_kept_as_they_were_passed():
    model, loss, optimizer = functional(), K.losses.MeanSquaredError(), K.optimizers.SGD()
    assert compile_arguments(model) is None
    model.compile(optimizer, loss, metrics=["mae"], run_eagerly=True)
    arguments = compile_arguments(model)
    assert (arguments["optimizer"], arguments["loss"], arguments["run_eagerly"]) == (optimizer, loss, True)
    assert list(arguments["metrics"]) == ["mae"]


def test_compile_config_is_another_object_after_each_compile():
    model = functional()
    assert compile_config(model) is None
    configs = []
    for _ in range(2):
        model.compile("sgd", "mse")
        configs.append(compile_config(model))
    assert None not in configs
    assert configs[0] is not configs[1]


def test_trainable_variables_of_an_optimizer_are_fixed_when_it_is_first_applied():
    model = functional()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    model.get_layer("hidden").trainable = False
    trained = trained_variables(model.optimizer)
    assert len(trained) == (0 if LEGACY else 6)
    assert [v.trainable for v in trained] == ([] if LEGACY else [False, False, True, True, True, True])


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


def test_the_train_function_is_a_tf_function_or_its_closure_holds_one():
    model = functional()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    traces = [function.experimental_get_tracing_count() for function in tf_functions(model.train_function)]
    assert traces == [2 if LEGACY else 1]  # tf_keras makes the optimizer's variables in a first trace


def test_make_train_function_uses_the_train_step_of_the_instance():
    """Keras 3.15 takes it when it makes the function, Keras 3.3 and tf_keras when they trace it."""
    model, steps = functional(), []
    model.compile("sgd", "mse")
    model.make_train_function()
    before = {name: vars(model).get(name) for name in ("train_function", "train_tf_function")}

    def train_step(data):
        steps.append(data)
        return {"loss": 0.0}

    function = build_train_function(model, train_step)
    assert {name: vars(model).get(name) for name in before} == before
    assert function is not before["train_function"]
    with patched(model, "train_step", train_step):
        function(iter(tf.data.Dataset.from_tensors((X, Y))))
    assert len(steps) == 1


def test_fit_has_its_list_of_callbacks_in_a_variable_named_callbacks():
    """So it is seen from another thread that a fit is running, and from a hook which one calls it."""

    class Noting(K.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.fit = fit_under_way()
            self.running = is_under_way(self.fit)
            frame = sys._getframe()
            while frame is not None and frame.f_code.co_name != "fit":
                frame = frame.f_back
            self.variable = frame.f_locals["callbacks"]

    model, noting = functional(), Noting()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0, callbacks=[noting])
    assert isinstance(noting.fit, K.callbacks.CallbackList)
    assert noting.variable is noting.fit
    assert noting in noting.fit.callbacks
    assert noting.running
    assert not is_under_way(noting.fit)


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


def test_global_random_generators_are_put_back():
    def drawn():
        if LEGACY:
            from tf_keras.src.backend import _SEED_GENERATOR

        of_keras = _SEED_GENERATOR.generator.random() if LEGACY else np.asarray(K.random.normal((3,)))
        of_tensorflow = tf.random.normal([2]), tf.random.get_global_generator().normal([2])
        return of_keras, random.random(), np.random.random(), *(np.asarray(t) for t in of_tensorflow)

    def seeded():
        K.backend.clear_session()
        K.utils.set_random_seed(1)
        tf.random.set_global_generator(tf.random.Generator.from_seed(1))

    seeded()
    expected = drawn()
    seeded()
    with random_states_restored():
        assert drawn()[1:3] == expected[1:3]
    for a, b in zip(drawn(), expected):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("eager", [True, False])
def test_probabilities_know_their_logits(activation, eager):
    layer = L.Dense(2, activation)
    layer(X)

    def logits(x):
        return logits_of(layer(x))

    found = logits(X) if eager else tf.function(logits)(X)
    np.testing.assert_allclose(found, X @ np.asarray(layer.kernel), rtol=1e-5)
    assert logits_of(tf.constant(X)) is None


def test_a_graph_in_which_keras_builds_a_model_has_a_known_name():
    """`is_scratch_graph` knows it: nothing is counted there."""

    class Noting(L.Layer):
        def call(self, t):
            graphs.append(tf.compat.v1.get_default_graph())
            return t

    graphs = []
    K.Sequential([K.Input((3,)), Noting()])
    assert graphs
    assert all(is_scratch_graph(graph) for graph in graphs)


def test_the_schedule_of_an_optimizer_and_the_optimizer_that_scales_its_loss():
    schedule = K.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    inner = K.optimizers.SGD(schedule)
    kind = getattr(K.mixed_precision, "LossScaleOptimizer", None) or K.optimizers.LossScaleOptimizer
    assert optimizer_parts(inner) == [schedule]
    assert set(optimizer_parts(kind(inner))) == {inner, schedule}
    assert optimizer_parts(K.optimizers.SGD(0.1)) == []
