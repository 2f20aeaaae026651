"""What is true of these weights on this data? One pass, weights frozen, inference mode."""

import inspect
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import tensorflow as tf

from relu_probe.counting.counters import Counters
from relu_probe.counting.probe import attached
from relu_probe.measuring import data as data_module
from relu_probe.report.report import Report
from relu_probe.structure.keras_layers import compile_config, layer_settings, variables_changed_by_inference
from relu_probe.structure.relu_layers import find_relus, select_layers
from relu_probe.structure.support import check_model
from relu_probe.utils.error_policy import reason
from relu_probe.utils.weak_id_dict import WeakIdDict

_kept = WeakIdDict()


def measure(
    model: Any,
    data: Any,
    *,
    batch_size: int = 32,
    max_samples: int | None = None,
    layers: Any = None,
    verbose: int | str = 0,
) -> Report:
    """Counts which ReLUs of `model` fire on `data`, and through which a gradient flows.

    One pass over the data, weights frozen, inference mode; metrics and seed states are left as found. The gradient is
    that of the compiled loss with respect to the pre-activations, whether or not the weights before them are frozen.

    Args:
        model: a built Keras model. Without a compiled loss only the activations are counted.
        data: x, `(x,)`, `(x, y)` or `(x, y, sample_weight)` as arrays (a list or dict is x), a batched
            `tf.data.Dataset`, or a `PyDataset`. x alone: activations only, `with_gradient` is None.
        batch_size: samples a step, for arrays. The counts do not depend on it.
        max_samples: stop after exactly so many samples.
        layers: names, globs or layer objects, of nested models paths too, such as "encoder/*"; None for every ReLU layer.
        verbose: 0 silent, 1 Keras's progress bar, 2 one line.

    Returns:
        A `Report` with source "measure".

    Raises:
        ValueError: the model is unbuilt or has no ReLU, `layers` names none, or the data is empty, infinite or does
            not fit the model.

    >>> import tensorflow as tf
    >>> bias = tf.keras.initializers.Constant([-100.0, 100.0])
    >>> model = tf.keras.Sequential(
    ...     [tf.keras.Input((3,)), tf.keras.layers.Dense(2, "relu", bias_initializer=bias, name="hidden")])
    >>> report = measure(model, tf.zeros((8, 3)))
    >>> report["hidden"].dead
    array([ True, False])
    """
    check_model(model)
    measurer = measurer_of(model)
    keys = select_layers(list(measurer.counters.relus.values()), layers, model)
    batches = data_module.read(data, batch_size, max_samples)
    return measurer.run(batches, verbose).select(keys)


def measurer_of(model: Any) -> "Measurer":
    """One a model, kept while its layers, loss and optimizer are the same: each new one traces anew."""
    _check_built(model)
    measurer: Measurer | None = _kept.get(model)
    if measurer is None or not measurer.fits(model):
        measurer = _kept[model] = Measurer(model)
    return measurer


class Measurer:
    """A counted inference step of one model. It does not keep the model alive."""

    def __init__(self, model: Any) -> None:
        self.model: Any = weakref.ref(model)
        self.state, self.modes = _identity(model), layer_settings(model)
        self.counters = Counters(model, find_relus(model), activation_sum=True, measuring=True)
        self._steps: dict[Any, Any] = {}

    def fits(self, model: Any) -> bool:
        same = len(self.state) == len(now := _identity(model)) and all(a is b for a, b in zip(self.state, now))
        return same and self.modes == layer_settings(model) and self.counters.traces(find_relus(model))

    def run(self, batches: data_module.Batches, verbose: int | str = 0) -> Report:
        model, counters = self.model(), self.counters
        gradients = batches.labelled and has_loss(model)
        counters.reset()
        with _left_as_found(model):
            self._pass_over(batches, gradients, _progress(batches, verbose))
        if counters.failure is not None:
            raise counters.failure
        missing = counters.missing(list(counters.relus))
        report = Report(counters.read(list(counters.relus)), source="measure", incomplete=missing)
        if not report.samples and missing:
            raise ValueError(f"nothing could be measured: {missing}.")
        if not report.samples:
            raise ValueError("data is empty (0 samples); expected at least 1. Check the split or filter that made it.")
        return report

    def check(self, batches: data_module.Batches) -> None:
        """Traces the step, and reads nothing yet: what cannot fit is told before a training begins.

        Not where a step is not traced (eagerly), nor on several devices: there the first measurement tells.

        Raises:
            ValueError: the data does not fit the model.
        """
        model = self.model()
        step = self._step(batches.labelled and has_loss(model), batches.dataset)
        if self._distributed or not hasattr(step, "get_concrete_function"):
            return
        try:
            with _left_as_found(model):
                step.get_concrete_function(tf.data.IteratorSpec(batches.dataset.element_spec))
        except Exception as error:
            raise ValueError(_does_not_fit(model, batches.dataset, error)) from error

    @property
    def _distributed(self) -> bool:
        return bool(tf.distribute.has_strategy() or self.counters.strategy.num_replicas_in_sync > 1)

    def _observing(self, model: Any) -> AbstractContextManager[None]:
        """For who wants to see more of a step than is counted."""
        return nullcontext()

    def _pass_over(self, batches: data_module.Batches, gradients: bool, progress: Any) -> None:
        dataset = batches.dataset.prefetch(tf.data.AUTOTUNE)
        strategy = self.counters.strategy
        iterator = iter(strategy.experimental_distribute_dataset(dataset) if self._distributed else dataset)
        step, done = self._step(gradients, dataset), 0
        while True:
            try:
                step(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                break
            except Exception as error:
                if done:
                    raise
                raise ValueError(_does_not_fit(self.model(), batches.dataset, error)) from error
            done += 1
            progress.update(done)
        if done and progress.target is None:
            progress.update(done, finalize=True)

    def _step(self, gradients: bool, dataset: Any) -> Any:
        """The step on an iterator, traced once for each kind of data.

        One a rank: what was traced for labels `(n,)`, TensorFlow would make one for any rank given `(n, 1)`, and fail.
        """
        ranks = tuple(spec.shape.rank for spec in tf.nest.flatten(dataset.element_spec))
        key = (gradients, ranks)
        if key not in self._steps:
            model, strategy, count = self.model(), self.counters.strategy, self._counted(gradients)
            eager = bool(model.run_eagerly)
            if not eager and _jit(model):
                count = tf.function(count, jit_compile=True, reduce_retracing=True)

            def step(iterator: Any) -> None:
                strategy.run(count, args=(next(iterator),))

            self._steps[key] = step if eager else tf.function(step, reduce_retracing=True)
        return self._steps[key]

    def _counted(self, gradients: bool) -> Any:
        reference, counters = self.model, self.counters

        @tf.autograph.experimental.do_not_convert
        def count(batch: tuple[Any, ...]) -> None:
            model = reference()
            with attached(counters), counters.step(batch), self._observing(model):
                if not gradients:
                    _forward(model, batch[0])
                    return
                with tf.GradientTape() as tape, counters.sources(tape) as sources:
                    loss = _loss(model, *batch)
                inner = any(source is None for source in sources)  # inside a loop: no source of its own
                tape.gradient(
                    loss, [s for s in sources if s is not None] + (model.trainable_variables if inner else [])
                )

        return count


def has_loss(model: Any) -> bool:
    own = type(model).compute_loss is not tf.keras.Model.compute_loss
    return getattr(model, "loss", None) is not None or (own and getattr(model, "optimizer", None) is not None)


def _forward(model: Any, x: Any) -> Any:
    takes_training = "training" in inspect.signature(model.call).parameters or not _is_subclassed(model)
    return model(x, training=False) if takes_training else model(x)


def _is_subclassed(model: Any) -> bool:
    return type(model).call is not tf.keras.Model.call


def _loss(model: Any, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """The loss as `fit` computes it, with the optimizer's loss scale, without which float16 gradients underflow."""
    more = (
        {"training": False} if "training" in inspect.signature(model.compute_loss).parameters else {}
    )  # not in Keras 3.3
    loss = model.compute_loss(x=x, y=y, y_pred=_forward(model, x), sample_weight=sample_weight, **more)
    optimizer = model.optimizer
    scale = getattr(optimizer, "scale_loss", None) or getattr(optimizer, "get_scaled_loss", None)
    return scale(loss) if scale else loss


@contextmanager
def _left_as_found(model: Any) -> Iterator[None]:
    """`compute_loss` moves metric trackers, and some layers their seed states or counters: all are put back."""
    states = [*_metric_variables(model), *variables_changed_by_inference(model)]
    before = [(v, tf.identity(tf.convert_to_tensor(v))) for v in states]
    try:
        yield
    finally:
        for variable, value in before:
            # To read what was assigned is a collective of all workers: one with an error would wait in it for ever.
            variable.assign(value, **({"read_value": False} if isinstance(variable, tf.Variable) else {}))
        known = {id(v) for v in states}
        for metric in model.metrics:  # made while measuring: back to where it begins
            if any(id(v) not in known for v in metric.variables):
                metric.reset_state()


def _metric_variables(model: Any) -> list[Any]:
    return [v for metric in model.metrics for v in metric.variables]


def _identity(model: Any) -> tuple[Any, ...]:
    """What a traced step depends on, beside the layers."""
    optimizer = getattr(model, "optimizer", None)
    scale = getattr(optimizer, "dynamic_scale", None)  # Keras 3 makes it at the first step, and until then a constant
    return (getattr(model, "loss", None), optimizer, compile_config(model), scale, _jit(model), bool(model.run_eagerly))


def _jit(model: Any) -> bool:
    return getattr(model, "jit_compile", None) is True


def _progress(batches: data_module.Batches, verbose: int | str) -> Any:
    verbose = {"auto": 1}.get(str(verbose), verbose)
    return tf.keras.utils.Progbar(batches.steps, verbose=verbose, unit_name="step")


def _check_built(model: Any) -> None:
    if not model.built:
        raise ValueError(
            f"model {model.name!r} is unbuilt: it has no weights yet, so nothing can be measured. Call it on a batch, or "
            "model.build(input_shape), or begin it with keras.Input."
        )


def _does_not_fit(model: Any, dataset: Any, error: Exception) -> str:
    shapes = tf.nest.map_structure(lambda s: tuple(s.shape), dataset.element_spec)
    expected = getattr(model, "input_shape", None) or "the shape it was built for"
    return (
        f"the model cannot be run on the data: found batches of shape {shapes} (x first), expected x of {expected}, "
        f"batched, with labels that fit the loss. Reshape or batch the data. Keras says: {reason(error)[:500]}"
    )
