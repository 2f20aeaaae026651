"""The private names of TensorFlow that the package relies on: if TensorFlow changes one, the test named for it fails."""

import gc
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from relu_probe.utils.tensorflow_private import (
    begin_observing,
    end_observing,
    forget_gradient_with,
    ids_and_shapes,
    import_event,
    is_compiled_by_xla,
    is_debugged,
    is_inside_vectorized_map,
    is_loop_or_branch,
    is_part_of,
    is_recorded_from_outside,
    lend_trace,
    observe_new_operations,
    operation_definition,
    recomputation,
)

pytestmark = pytest.mark.upstream


def loop(x):
    return tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, note(a * 2)), (0, x))[1]


def branch(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: note(x * 2), lambda: x)


def vectorized(x):
    return tf.vectorized_map(note, x)


def plain(x):
    return note(x * 2)


def note(value):
    """Notes what is known where the body is traced."""
    graph = tf.compat.v1.get_default_graph()
    seen.append((is_loop_or_branch(graph), is_inside_vectorized_map()))
    return value


seen: list[tuple[bool, bool]] = []


@pytest.mark.parametrize("jit", [False, True])
def test_a_function_knows_that_xla_compiles_it_or_its_caller(jit):
    found = []

    def function(x):
        found.append(is_compiled_by_xla())
        return x * 2

    tf.function(function, jit_compile=jit)(tf.ones(2))
    tf.function(tf.function(function), jit_compile=jit)(tf.ones(2))
    assert found == [jit, jit]
    assert not is_compiled_by_xla()


@pytest.mark.parametrize(
    ("function", "expected"),
    [(loop, (True, False)), (branch, (True, False)), (vectorized, (False, True)), (plain, (False, False))],
)
def test_control_flow_func_graph_and_the_scope_loop_body(function, expected):
    """`ControlFlowFuncGraph` is the class of the graph of a loop or branch, `loop_body` the scope of a vectorized map."""
    seen.clear()
    tf.function(function).get_concrete_function(tf.ones((3, 2)))
    assert set(seen) == {expected}


def test_control_flow_func_graph_has_the_gradient_of_a_loop_too():
    graphs = []

    @tf.custom_gradient
    def identity(a):
        def backward(gradient):
            graphs.append(tf.compat.v1.get_default_graph())
            return gradient

        return tf.identity(a), backward

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, identity(a) * 2), (0, x))[1]
        return tape.gradient(y, x)

    np.testing.assert_array_equal(gradient(tf.ones(2)), [4, 4])
    assert graphs
    assert all(is_loop_or_branch(graph) for graph in graphs)


def test_concrete_variable_creation_fn_is_the_trace_of_a_tf_function():
    traced, other = tf.function(plain), tf.function(plain)
    name = "_concrete_variable_creation_fn"
    assert not hasattr(traced, name)
    traced(tf.ones(2))
    lend_trace(traced, other)
    assert getattr(other, name) is getattr(traced, name)
    assert getattr(other, name).graph.get_operations()  # what Keras's TensorBoard callback shows
    own = getattr(traced, name)
    other(tf.ones(2))
    assert getattr(other, name) is not own  # TensorFlow overwrites it
    lend_trace(traced, other)
    assert getattr(other, name) is not own  # and a trace of its own stays


def test_gradient_registry_keeps_custom_gradients_until_they_are_taken_off():
    from tensorflow.python.framework import ops

    class Model:
        """Anything that can be deleted."""

    registered, names = ops.gradient_registry._registry, []

    @tf.function
    def call(x):
        result = tf.custom_gradient(lambda a: (tf.identity(a), lambda gradient: gradient))(x)
        names.append(result.op.get_attr("_gradient_op_type").decode())
        forget_gradient_with(reference(), result)
        return result

    model = Model()
    reference = weakref.ref(model)
    call.get_concrete_function(tf.ones(2))
    assert names
    assert set(names) <= set(registered)
    del model
    gc.collect()
    assert not set(names) & set(registered)


def test_the_handle_of_a_summary_writer_takes_any_event(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    import_event(writer, Event(step=7, session_log=SessionLog(status=SessionLog.START)))
    writer.close()
    (file,) = tmp_path.iterdir()
    written = [(event.step, event.session_log.status) for event in EventFileLoader(str(file)).Load()]
    assert written == [(0, SessionLog.STATUS_UNSPECIFIED), (7, SessionLog.START)]  # the first is the file's version


# --- what the search for ReLUs written as functions relies on ----------------------------------------------------------


def test_the_version_of_a_graph_is_the_number_of_its_operations():
    @tf.function
    def step(x):
        graph = tf.compat.v1.get_default_graph()
        numbers.append((graph.version, len(graph.get_operations())))
        x = tf.nn.relu(x) * 2.0
        numbers.append((graph.version, len(graph.get_operations())))
        return x

    numbers = []
    step(tf.ones(3))
    assert all(version == operations for version, operations in numbers)
    assert numbers[0] < numbers[1]


def test_the_body_of_a_loop_is_part_of_its_graph_and_a_function_is_not():
    @tf.function
    def function(x):
        found.append(is_part_of(tf.compat.v1.get_default_graph(), outer[0]))
        return x

    @tf.function
    def step(x):
        outer.append(tf.compat.v1.get_default_graph())

        def body(i, a):
            found.append(is_part_of(tf.compat.v1.get_default_graph(), outer[0]))
            return i + 1, function(a)

        return tf.while_loop(lambda i, _: i < 2, body, (0, x))[1]

    outer, found = [], []
    step(tf.ones(3))
    assert found == [True, False]


@pytest.mark.parametrize("eager", [False, True])
def test_recompute_grad_runs_its_function_twice(eager):
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.recompute_grad(lambda a: notes.append(recomputation()) or a * 2.0)(x)
        notes.append(recomputation())
        return tape.gradient(y, x)

    notes = []
    (step if eager else tf.function(step))(tf.ones(3))
    assert notes == ["first", "", "again"]


def test_op_callbacks_tell_of_the_operations_of_a_thread():
    """Also of those that a tape runs. The attributes are names and values by turns; the call of a function has its name as type."""
    seen = []

    def observer(kind, inputs, attributes, outputs, *_, graph=None, **__):
        seen.append((kind if isinstance(kind, str) else kind.decode(), attributes, graph))
        return outputs

    function, x = (
        tf.function(lambda t: tf.map_fn(lambda row: tf.cond(row[0] > 0, lambda: row, lambda: -row), t)),
        tf.ones((2, 3)),
    )
    begin_observing(observer)
    try:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.relu(tf.matmul(x, x, transpose_b=True))
        tape.gradient(y, x)
        np.testing.assert_array_equal(function(x), x)
    finally:
        end_observing(observer)
    end_observing(observer)  # nothing more happens
    tf.ones((2, 3)) + 1.0
    eager = [(kind, attributes) for kind, attributes, graph in seen if graph is None]
    kinds = [kind for kind, _ in eager]
    assert kinds.index("MatMul") < kinds.index("Relu") < kinds.index("ReluGrad")
    assert any(kind.startswith("__inference_") for kind in kinds)
    attributes = next(attributes for kind, attributes in eager if kind == "MatMul")
    assert attributes[attributes.index("transpose_b") + 1] is True


def test_debuggers_are_noticed_in_eager_code_and_in_graphs():
    noticed = [is_debugged()]
    tf.debugging.enable_check_numerics()
    try:
        noticed.append(is_debugged())
        tf.function(lambda: noticed.append(is_debugged()))()
    finally:
        tf.debugging.disable_check_numerics()
    assert [*noticed, is_debugged()] == [False, True, True, False]


def test_numbers_of_eager_tensors_and_definitions_of_operations():
    x, y = tf.ones((2, 3)), tf.ones(())
    ((a, shape), (b, scalar)) = ids_and_shapes([x, y])
    assert (shape, scalar) == ((2, 3), ())
    assert a != b
    assert ids_and_shapes([x]) == [(a, (2, 3))]
    assert ids_and_shapes([tf.identity(x)])[0][0] not in (a, b)
    assert operation_definition("AssignAddVariableOp").is_stateful
    assert not operation_definition("MatMul").is_stateful
    assert operation_definition("__inference_f_1") is None


# --- operations of another function -----------------------------------------------------------------------------------


def test_each_operation_that_is_added_to_a_graph_is_observed():
    kinds, restorers = [], []

    @tf.function
    def function(x):
        observe_new_operations(tf.compat.v1.get_default_graph(), lambda op: kinds.append(op.type), restorers)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.relu(x)
        y = tape.gradient(y, x)
        restorers[0]()
        return tf.exp(y)

    function(tf.ones(3))
    assert {"Relu", "ReluGrad"} <= set(kinds)
    assert "Exp" not in kinds


@pytest.mark.parametrize("outside", [False, True])
def test_a_tape_outside_of_a_function_shows_in_its_outputs(outside):
    w = tf.Variable(tf.ones((3, 3)))

    @tf.function
    def function(x):
        with tf.GradientTape() as tape:
            y = tf.nn.relu(x @ w)
        return y if outside else tape.gradient(y, w)

    with tf.GradientTape() if outside else nullcontext():
        function(tf.ones((2, 3)))
    (graph,) = [each.graph for each in function._list_all_concrete_functions()]
    assert is_recorded_from_outside(graph) == outside
