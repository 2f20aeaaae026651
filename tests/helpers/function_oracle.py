"""Brute force: all ReLU functions of TensorFlow are replaced while a model runs eagerly, and NumPy counts what they return."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class Run(NamedTuple):
    """What one call of a ReLU function returned, and where its derivative is zero although the output is positive."""

    output: tf.Tensor
    stopped: Any


@contextmanager
def recorded(tape: tf.GradientTape) -> Iterator[list[Run]]:
    """Records the ReLUs that run in the block, in their order; the tape watches their outputs."""
    runs: list[Run] = []

    def replaced(function: Any, is_relu: Any, stopped: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            output = function(*args, **kwargs)
            if not is_relu(args) or _is_part_of_another_function():
                return output
            output = tf.identity(output)
            tape.watch(output)
            runs.append(Run(output, stopped(args)))
            return output

        return call

    with_zero = lambda args: any(isinstance(a, float) and a == 0 for a in args)  # noqa: E731
    replacements = {
        (nn, name): replaced(getattr(nn, name), lambda args: True, lambda args, c=bound: np.asarray(args[0]) >= c)
        for nn in (tf.nn, tf.compat.v2.nn)
        for name, bound in (("relu", np.inf), ("relu6", 6.0))
    }
    replacements[tf, "maximum"] = replaced(tf.maximum, with_zero, lambda args: False)
    replacements[tf, "clip_by_value"] = replaced(
        tf.clip_by_value, lambda args: args[1] == 0, lambda args: np.asarray(args[0]) > args[2]
    )
    before = {where: getattr(*where) for where in replacements}
    try:
        for (module, name), function in replacements.items():
            setattr(module, name, function)
        yield runs
    finally:
        for (module, name), function in before.items():
            setattr(module, name, function)


def _is_part_of_another_function() -> bool:
    """Whether `hard_swish` or `hard_sigmoid`, which are no ReLUs, calls the function."""
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_name.startswith("hard_"):
        frame = frame.f_back
    return frame is not None


def counts(model: Any, x: Any, y: Any, keys: list[str], *, training: bool) -> dict[str, dict[str, Any]]:
    """Returns the positions active and with gradient of each ReLU; `keys` names those of a forward pass, in order."""
    return counts_of(lambda: model.compute_loss(x, tf.constant(y), model(tf.constant(x), training=training)), keys)


def counts_of(loss_of: Callable[[], tf.Tensor], keys: list[str]) -> dict[str, dict[str, Any]]:
    """Returns the same as `counts`, of a function that computes a loss."""
    with tf.GradientTape() as tape, recorded(tape) as runs:
        loss = loss_of()
    gradients = tape.gradient(loss, [run.output for run in runs])
    assert len(runs) == len(keys), f"{len(runs)} ReLUs ran, expected {keys}"
    found: dict[str, dict[str, Any]] = {}
    for key, run, gradient in zip(keys, runs, gradients):
        a, g, stopped = (
            neurons_last(np.broadcast_to(t, run.output.shape)) for t in (run.output, gradient, run.stopped)
        )
        each = {"positions": len(a), "active": (a > 0).sum(0), "with_gradient": passes(a, g, stopped).sum(0)}
        found[key] = {name: value + found[key][name] if key in found else value for name, value in each.items()}
    return found


def neurons_last(values: Any) -> Any:
    """Returns the values as `(positions, neurons)`."""
    return values.reshape(-1, values.shape[-1])


def passes(a: Any, gradient: Any, stopped: Any) -> Any:
    """Returns where dL/dz is not zero."""
    return (gradient != 0) & (a > 0) & ~stopped


def assert_counted(report: Any, expected: dict[str, dict[str, Any]]) -> None:
    """Asserts that a report has exactly these layers and counts."""
    assert set(report.layers) == set(expected), (dict(report.unseen), list(report.layers))
    for key, values in expected.items():
        for name, value in values.items():
            np.testing.assert_array_equal(getattr(report[key], name), value, err_msg=f"{key} {name}")
