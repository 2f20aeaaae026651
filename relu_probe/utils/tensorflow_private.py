"""The private names of TensorFlow that the package uses; `tests/upstream/test_tensorflow_names.py` pins each."""

import random
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import tensorflow as tf


def is_loop_or_branch(graph: Any) -> bool:
    """Whether the graph is the body of a `tf.while_loop` or `tf.cond`, or the gradient of one."""
    return any(c.__name__ == "ControlFlowFuncGraph" for c in type(graph).__mro__)


def is_compiled_by_xla() -> bool:
    """Whether the code that runs now traces a `tf.function` with `jit_compile=True`, or a function that one calls."""
    from tensorflow.python.ops import control_flow_util

    return not tf.executing_eagerly() and bool(
        control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    )


def is_inside_vectorized_map() -> bool:
    """Whether the code that runs now traces the body of a `tf.vectorized_map` or of a Jacobian."""
    scope = "" if tf.executing_eagerly() else tf.compat.v1.get_default_graph().get_name_scope()
    return any(part.startswith("loop_body") for part in scope.split("/"))


def lend_trace(source: Any, target: Any) -> None:
    """Lets the `tf.function` `target`, which was never traced, show the graph of `source`.

    Keras's TensorBoard callback shows the graph of `model.train_function`, and fails if that was never traced.
    """
    name = "_concrete_variable_creation_fn"  # TensorFlow overwrites it when it traces the target
    if hasattr(source, name) and not hasattr(target, name):
        setattr(target, name, getattr(source, name))


def forget_gradient_with(model: Any, output: Any) -> None:
    """Unregisters the custom gradient that made `output` once the model is deleted.

    TensorFlow never unregisters a custom gradient, and so keeps the graph in which it was traced.
    """
    if model is None or tf.executing_eagerly():
        return
    with suppress(ValueError):  # an operation without a custom gradient
        name = output.op.get_attr("_gradient_op_type").decode()
        weakref.finalize(model, _unregister, name).atexit = False


@contextmanager
def eager_seeds_restored(*, runs_operations: bool = False) -> Iterator[None]:
    """Puts back the seeds of eager operations, and the global `tf.random.Generator`.

    TensorFlow keeps a kernel for each pair of the global seed and an operation's seed, and the state of a kernel cannot be put back.
    So seeds come from another generator inside the block.

    Args:
        runs_operations: whether random operations run eagerly in the block, and do not only become part of a graph. Then the global
            seed is another one, too, for operations with a seed of their own.
    """
    from tensorflow.python.eager import context
    from tensorflow.python.ops import stateful_random_ops

    eager, generator = context.context(), stateful_random_ops.global_generator
    seeds = getattr(eager, "_rng", None)  # exists once a global seed was set
    before = None if generator is None else generator.state.numpy()
    changed = random.Random(hash(seeds.getstate()) if seeds is not None else 0)
    global_seed = eager._seed
    if seeds is not None or runs_operations:
        eager._rng = changed
    if runs_operations:
        eager._seed = changed.randrange(2**31)
    try:
        yield
    finally:
        eager._seed = global_seed
        if seeds is not None or runs_operations:
            eager._rng = seeds
        stateful_random_ops.global_generator = generator
        if generator is not None and (generator.state.numpy() != before).any():
            generator.state.assign(before)


def begin_observing(observer: Callable[..., Any]) -> None:
    """Calls `observer` after each operation of this thread, as TensorFlow's debugger does.

    Args:
        observer: gets the operation's type, inputs, attributes, outputs, name and graph, and returns the outputs.
    """
    from tensorflow.python.framework import op_callbacks

    op_callbacks.add_op_callback(observer)


def end_observing(observer: Callable[..., Any]) -> None:
    """Ends what `begin_observing` began, if it did."""
    with suppress(ImportError, AttributeError, KeyError):
        from tensorflow.python.framework import op_callbacks

        op_callbacks.remove_op_callback(observer)


def is_debugged() -> bool:
    """Whether something looks at each operation of this thread, such as `tf.debugging.enable_check_numerics`."""
    from tensorflow.python.framework import op_callbacks

    return bool(op_callbacks.should_invoke_op_callbacks())


def observe_new_operations(graph: Any, observer: Callable[[Any], None], restorers: list[Callable[[], None]]) -> None:
    """Calls `observer` with each operation that is added to a graph, once it is there; `restorers` gets a function that ends it."""
    create, observers = graph._create_op_internal, [observer]

    def created(*args: Any, **kwargs: Any) -> Any:
        op = create(*args, **kwargs)
        for each in observers:
            each(op)
        return op

    def end() -> None:
        observers.clear()
        if graph._create_op_internal is created:  # no other observer has come since
            del graph._create_op_internal

    restorers.append(end)
    graph._create_op_internal = created


def is_recorded_from_outside(graph: Any) -> bool:
    """Whether a tape outside of a `tf.function` has recorded a call of it: then tensors of its graph are further outputs."""
    returned = {id(each) for each in tf.nest.flatten(graph.structured_outputs, expand_composites=True)}
    return any(id(each) not in returned and each.op.type != "Placeholder" for each in graph.outputs)


def ids_and_shapes(tensors: Any) -> list[tuple[int, tuple[int, ...]]]:
    """Returns the number of each eager tensor, which no other tensor of the process has or will have, and its shape."""
    return [(each._id, each._shape_tuple()) for each in tensors]


def operation_definition(kind: str) -> Any:
    """Returns the definition of a type of operation; None if there is none."""
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(kind)


def assigned_handles(graph: Any) -> list[tuple[Any, Any]]:
    """Returns the handle and the dtype of each variable of other graphs that an operation of `graph` may assign to.

    A variable that is passed to a function may be assigned there.
    """
    read_only = ("ReadVariableOp", "VariableShape", "ResourceGather", "ResourceGatherNd")
    handles = [
        handle
        for handle, inside in graph.captures
        if handle.dtype == tf.resource and any(op.type not in read_only for op in inside.consumers())
    ]
    kinds = [getattr(getattr(handle, "_handle_data", None), "shape_and_type", ()) for handle in handles]
    return [
        (handle, tf.as_dtype(kind[0].dtype)) for handle, kind in zip(handles, kinds) if kind
    ]  # others are no variables


def _unregister(name: str) -> None:
    with suppress(ImportError, AttributeError):  # if the registry moves, the graph of a deleted model stays in memory
        from tensorflow.python.framework import ops

        ops.gradient_registry._registry.pop(name, None)


def import_event(writer: Any, event: Any) -> None:
    """Writes an event of any kind to the file of a `tf.summary` writer.

    Args:
        writer: what `tf.summary.create_file_writer` returned.
        event: an `Event` of TensorBoard's protocol buffers.

    Raises:
        tf.errors.OpError: the file cannot be written.
    """
    tf.raw_ops.ImportEvent(writer=writer._resource, event=event.SerializeToString())


def is_part_of(graph: Any, outer: Any) -> bool:
    """Whether `graph` is `outer`, or the body of a loop or branch in it; not a `tf.function` that `outer` calls."""
    while graph is not outer and is_loop_or_branch(graph):
        graph = graph.outer_graph
    return graph is outer


def recomputation() -> str:
    """Returns "first" in the forward pass of a `tf.recompute_grad`, "again" where its gradient runs that again; else ""."""
    frame, names = sys._getframe(1), set()
    while frame is not None:
        if frame.f_code.co_name in ("inner", "inner_recompute_grad"):
            names.add(frame.f_code.co_name * frame.f_code.co_filename.endswith("custom_gradient.py"))
        frame = frame.f_back  # type: ignore[assignment]
    return "again" if "inner_recompute_grad" in names else "first" if "inner" in names else ""
