"""The settings of a model and of its layers that a traced step depends on.

The attributes with a leading underscore are private names of Keras; `tests/upstream/test_keras_names.py` pins each.
"""

from typing import Any

import tensorflow as tf

from relu_probe.structure.keras_layers import keras_property, locate_layers


def compile_config(model: Any) -> Any:
    """Returns what the last `compile` stored: another object after each `compile`, None before the first."""
    return getattr(model, "_compile_config", None)


def compile_arguments(model: Any) -> dict[str, Any] | None:
    """Returns the arguments of the last `compile` as they were passed, None before the first."""
    stored = compile_config(model)
    return None if stored is None else dict(stored.config)


def optimizer_parts(optimizer: Any) -> list[Any]:
    """Returns the optimizer inside a LossScaleOptimizer and the schedule of a learning rate, as far as there are any."""
    inner = getattr(optimizer, "inner_optimizer", None)
    parts = [] if inner is None else [inner, *optimizer_parts(inner)]
    schedule = getattr(optimizer, "_learning_rate", None)
    return [*parts, schedule] if isinstance(schedule, tf.keras.optimizers.schedules.LearningRateSchedule) else parts


def run_settings(model: Any) -> list[Any]:
    """Returns how the model's steps are run, apart from its layers: counters and traces made for other settings are stale.

    These are XLA, eager execution, steps per execution, the distribution strategy and the precision of each layer.
    """
    # tf_keras has a variable, whose value its tuner may change after every step without a new trace.
    tuned = getattr(model, "_autotune_steps_per_execution", False)
    steps = None if tuned else getattr(model, "_steps_per_execution", getattr(model, "steps_per_execution", None))
    functions = (tf.config.functions_run_eagerly(), tf.config.optimizer.get_jit())
    precisions = [keras_property(located.layer, "compute_dtype") for located in locate_layers(model)]
    steps = None if steps is None else int(tf.convert_to_tensor(steps))  # also of a variable on several devices
    compiled = (getattr(model, "jit_compile", None), bool(model.run_eagerly), steps)
    return [*compiled, *functions, model.distribute_strategy, *precisions]


def unrolls_steps(model: Any) -> bool:
    """Whether several steps are one graph without a loop, as in Keras 3 before it had `unrolled_steps_per_execution`.

    At the end of the data, the next batch that the graph asks for is an error, which also stops a step that is still running.
    """
    of_keras_3 = not hasattr(model, "_steps_per_execution")
    several = getattr(model, "steps_per_execution", 1) != 1
    return of_keras_3 and several and not hasattr(model, "unrolled_steps_per_execution")


def layer_settings(model: Any) -> list[Any]:
    """Returns the settings of built layers that a user may change. A step that was traced before runs the old ones."""
    return [
        (
            id(layer),
            id(vars(layer).get("activation")),
            keras_property(layer, "quantization_mode"),
            bool(vars(layer).get("lora_enabled")),
        )
        for layer in (located.layer for located in locate_layers(model))
    ]
