"""The pass over data that counts a model's ReLUs: weights frozen, inference mode."""

import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

import tensorflow as tf

from relu_probe.counting.attachment import attached, detach_all
from relu_probe.counting.counters import Counters
from relu_probe.measuring.data import BatchedData
from relu_probe.measuring.inference import call_in_inference, has_loss, scaled_loss, state_restored
from relu_probe.measuring.input_checks import check_real, mismatch
from relu_probe.measuring.nothing_counted import check_any_relu
from relu_probe.report.report import Report
from relu_probe.structure.random_state import random_states_restored
from relu_probe.structure.relu_layers import find_relus
from relu_probe.structure.run_settings import compile_config, layer_settings, run_settings

Verbosity = int | Literal["auto"]


class StepObserver(Protocol):
    """Sees more of a step than is counted, as a part of the same traced step. An observed pass runs in one replica."""

    def recorded(self) -> AbstractContextManager[Any]:
        """A context manager around the model's forward pass."""

    def gradient_sources(self) -> list[Any]:
        """Tensors of the forward pass by which the loss is to be differentiated, too."""

    def observe(self, batch: Any, gradients: list[Any] | None) -> Any:
        """Returns tensors of what the step shows.

        Args:
            batch: `(x,)`, `(x, y)` or `(x, y, sample_weight)` of the step.
            gradients: those by `gradient_sources()`, None where there is no path; None for a step without a backward pass.
        """

    def collect(self, observed: Any) -> None:
        """Takes in, after each step, what `observe` returned."""


class Measurer:
    """A counted inference step of one model. It does not keep the model alive.

    Args:
        model: a built Keras model.
        observer: sees every step of a pass.

    Raises:
        ValueError: the model has no ReLU.
    """

    def __init__(self, model: Any, observer: StepObserver | None = None) -> None:
        self._model: Any = weakref.ref(model)
        self._observer = observer
        self._traced_on, self._settings = _trace_dependencies(model), _settings(model)
        strategy = None if observer is None else tf.distribute.get_strategy()
        self.counters = Counters(model, find_relus(model), activation_sum=True, measuring=True, strategy=strategy)
        self._steps: dict[tuple[bool, tuple[int | None, ...]], Any] = {}

    def is_current(self, model: Any) -> bool:
        """Whether a step traced for `model` earlier still measures it: same layers, settings, loss and optimizer."""
        now = _trace_dependencies(model)
        same = len(self._traced_on) == len(now) and all(a is b for a, b in zip(self._traced_on, now))
        return same and self._settings == _settings(model) and self.counters.traces(find_relus(model))

    def run(self, data: BatchedData, verbose: Verbosity = 0) -> Report:
        """Measures all layers in one pass over the data.

        Raises:
            ValueError: the data is empty or does not fit the model.
        """
        model, counters = self._model(), self.counters
        counters.reset()
        try:
            self._pass_over(data, _progress_bar(data.steps, verbose))
        except BaseException:  # an interrupt may have struck while the probes were detached
            detach_all(counters)
            raise
        if counters.failure is not None:
            raise counters.failure
        report = counters.report("measure", gradients=self._has_gradients(data))
        check_any_relu(report, model)
        if not report.samples and not report.unseen:
            raise ValueError("data is empty (0 samples); expected at least 1. Check the split or filter that made it.")
        return report

    def check(self, data: BatchedData) -> None:
        """Traces the step without reading any data, so that data that cannot fit fails before a training begins.

        A step that runs eagerly or on several devices is not traced; its first measurement fails instead.

        Raises:
            ValueError: the data does not fit the model.
        """
        model, step = self._model(), self._step(data)
        if self._distributed or not hasattr(step, "get_concrete_function"):
            return
        try:
            with random_states_restored():
                step.get_concrete_function(tf.data.IteratorSpec(data.dataset.element_spec))
        except Exception as error:
            raise ValueError(mismatch(model, data.dataset, error)) from error

    @property
    def _distributed(self) -> bool:
        return bool(tf.distribute.has_strategy() or self.counters.strategy.num_replicas_in_sync > 1)

    def _pass_over(self, data: BatchedData, progress: Any) -> None:
        dataset = data.dataset.prefetch(tf.data.AUTOTUNE)
        distribute = self.counters.strategy.experimental_distribute_dataset
        iterator = iter(distribute(dataset) if self._distributed else dataset)
        with self._state_restored(data, iterator):
            self._run_steps(data, iterator, progress)

    def _state_restored(self, data: BatchedData, iterator: Any) -> AbstractContextManager[None]:
        """Puts back what the pass changes. A step that is a graph is traced first, to see which variables it assigns to."""
        model, step = self._model(), self._step(data)
        if not hasattr(step, "get_concrete_function") or tf.config.functions_run_eagerly():
            return state_restored(model)
        try:
            with random_states_restored():
                traced = step.get_concrete_function(iterator)
        except Exception as error:
            raise ValueError(mismatch(model, data.dataset, error)) from error
        return state_restored(model, traced, self.counters.variables())

    def _run_steps(self, data: BatchedData, iterator: Any, progress: Any) -> None:
        step, done = self._step(data), 0
        while True:
            try:
                observed = step(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                break
            except Exception as error:
                if done:
                    raise
                raise ValueError(mismatch(self._model(), data.dataset, error)) from error
            if self._observer is not None:
                self._observer.collect(observed)
            done += 1
            progress.update(done)
        if done and progress.target is None:
            progress.update(done, finalize=True)

    def _step(self, data: BatchedData) -> Any:
        """The step as a function of an iterator, traced once for each kind of data.

        Ranks are part of the key: given labels `(n, 1)` after `(n,)`, TensorFlow would relax the trace to labels of any
        rank, and fail.
        """
        check_real(self._model(), data.dataset)
        gradients = self._has_gradients(data)
        key = (gradients, tuple(spec.shape.rank for spec in tf.nest.flatten(data.dataset.element_spec)))
        if key not in self._steps:
            self._steps[key] = self._make_step(gradients)
        return self._steps[key]

    def _has_gradients(self, data: BatchedData) -> bool:
        return data.labelled and has_loss(self._model())

    def _make_step(self, gradients: bool) -> Any:
        model, strategy, count = self._model(), self.counters.strategy, self._counted(gradients)
        eager = bool(model.run_eagerly)
        if not eager and _uses_xla(model):
            count = tf.function(count, jit_compile=True, reduce_retracing=True)

        def step(iterator: Any) -> Any:
            return strategy.run(count, args=(next(iterator),))

        return step if eager else tf.function(step, reduce_retracing=True)

    def _counted(self, gradients: bool) -> Any:
        reference, counters, observer = self._model, self.counters, self._observer

        @tf.autograph.experimental.do_not_convert
        def count(batch: tuple[Any, ...]) -> Any:
            model, found = reference(), None
            step = counters.step(batch, differentiated=gradients)
            with attached(counters), step, nullcontext() if observer is None else observer.recorded():
                if gradients:
                    found = _backward_pass(model, batch, counters, observer)
                else:
                    call_in_inference(model, batch[0])
            return None if observer is None else observer.observe(batch, found)

        return count


def _backward_pass(model: Any, batch: tuple[Any, ...], counters: Counters, observer: StepObserver | None) -> list[Any]:
    """Runs a step with its backward pass, and returns the gradients that the observer asks for."""
    trace = counters.trace
    assert trace is not None, "inside of a step"
    if trace.graph is None:
        with tf.GradientTape() as trace.tape:
            loss = scaled_loss(model, *batch)
    else:
        loss = scaled_loss(model, *batch)
    return counters.differentiate(loss, [] if observer is None else observer.gradient_sources())


def _trace_dependencies(model: Any) -> tuple[Any, ...]:
    """The objects that a traced step depends on, apart from the layers; to be compared by identity."""
    optimizer = getattr(model, "optimizer", None)
    # Keras 3 makes the variable at the first training step. Until then the scale is traced as a constant.
    scale = getattr(optimizer, "dynamic_scale", None)
    return (getattr(model, "loss", None), optimizer, compile_config(model), scale)


def _settings(model: Any) -> list[Any]:
    """The values that a traced step depends on; to be compared by equality."""
    return [run_settings(model), layer_settings(model)]


def _uses_xla(model: Any) -> bool:
    return getattr(model, "jit_compile", None) is True


def _progress_bar(steps: int | None, verbose: Verbosity) -> Any:
    return tf.keras.utils.Progbar(steps, verbose=1 if verbose == "auto" else verbose, unit_name="step")
