"""`revive`: brings dead neurons back without a change of the predictions on the data."""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from relu_probe.cure.edit import Edit
from relu_probe.cure.forward_pass import FirstPass, NoSignals, largest_change, predictions, read_signals
from relu_probe.cure.incoming import Healer, Treatment
from relu_probe.cure.optimizer_slots import check_optimizer, reset_slots
from relu_probe.cure.outgoing import close_gates
from relu_probe.cure.plan import LayerPlan, Left, Planner
from relu_probe.cure.revival import LayerRevival, Revival
from relu_probe.cure.selection import check_samples
from relu_probe.measuring.data import BatchedData, read_batches
from relu_probe.measuring.measure import measurer_of
from relu_probe.report.layer_report import Mask
from relu_probe.report.report import Report
from relu_probe.structure.relu_layers import ReluLayer, find_relus, select_layers
from relu_probe.structure.support import check_model
from relu_probe.utils.distributed import has_several_workers
from relu_probe.utils.validation import check_confidence

Method = Literal["cause", "redo"]
BLOCKED = (
    "blocked, not dead: zero outgoing weights of a neuron that fires get a gradient at the next step by themselves"
)


def revive(
    model: Any,
    data: Any,
    *,
    layers: Any = None,
    method: Method = "cause",
    fire: float = 0.5,
    confidence: float = 0.95,
    min_rate: float = 0.05,
    validation: Any = None,
    seed: int | None = None,
    batch_size: int = 32,
) -> Revival:
    """Brings the neurons that are dead on `data` back, so that they fire and can learn again.

    No prediction on the data changes: what a revived neuron leads to becomes zero, and gets a gradient at the next step. The
    optimizer's slots of all touched weights get their initial values. If anything fails, everything is as before.

    Args:
        model: a built functional or Sequential Keras model. What stands in code of your own is left as it is, by name.
        data: the same types as for `measure`. It must have so many samples that a neuron which fires on `min_rate` of
            samples like these is, with probability `confidence`, not dead on them.
        layers: names, globs or layer objects; None for every ReLU layer.
        method: "cause" changes what the cause of the death asks for: the bias is raised; weights are flipped, or drawn if
            they are zero; BatchNormalization before the ReLU gets the statistics of the data. "redo" draws all incoming
            weights by the layer's initialiser and sets the bias to 0 (Sokar et al. 2023, arXiv:2302.12902).
        fire: the share of positions at which a revived neuron fires, with method "cause"; 0 < fire <= 1.
        confidence, min_rate: see `data`; both between 0 and 1.
        validation: other data, on which the largest change of a prediction is reported.
        seed: of the weights that are drawn; None for other weights at each call.
        batch_size: samples in each step, for arrays.

    Returns:
        A `Revival`, with what was done and what was left, and `undo()`.

    Raises:
        ValueError: an argument is out of range, the data has too few samples, the optimizer's slots are not known, or for
            the reasons for which `measure` raises it.
        RuntimeError: a prediction on the data would have changed. Everything is as before.

    >>> import tensorflow as tf
    >>> bias = tf.keras.initializers.Constant([-100.0, 100.0])
    >>> model = tf.keras.Sequential([tf.keras.Input((3,)),
    ...     tf.keras.layers.Dense(2, "relu", bias_initializer=bias, name="hidden"), tf.keras.layers.Dense(1)])
    >>> x = tf.random.normal((100, 3))
    >>> revival = revive(model, x)
    >>> revival.before["hidden"].activation_rate, revival.after["hidden"].activation_rate
    (array([0., 1.]), array([0.5, 1. ]))
    """
    check_model(model)
    options = Options(layers, method, fire, check_confidence(confidence), min_rate, seed)
    options.check()
    if has_several_workers(model.distribute_strategy):
        raise ValueError(
            "the model is trained by several workers, and revive runs in one; expected a model of one worker."
        )
    batches = read_batches(data, batch_size)
    held_out = None if validation is None else read_batches(validation, batch_size)
    before = measurer_of(model).run(batches)
    relus = find_relus(model)
    selected = [key for key in select_layers(relus, options.layers, model) if key in before.layers]
    check_samples(before.samples, [before[key].neurons for key in selected], options.confidence, options.min_rate)
    check_optimizer(model)
    if not any(np.any(before[key].dead) for key in selected):
        return Revival(_sick({key: _untouched(before, key) for key in selected}), before, before)
    operation = _Operation(
        model, batches, validation=held_out, before=before, relus=relus, selected=selected, options=options
    )
    return operation.run()


class Options(NamedTuple):
    """The arguments of `revive`, apart from the model and its data."""

    layers: Any = None
    method: Method = "cause"
    fire: float = 0.5
    confidence: float = 0.95
    min_rate: float = 0.05
    seed: int | tuple[int, ...] | None = None

    def check(self) -> None:
        """Raises ValueError if one of them is out of range."""
        if self.method not in ("cause", "redo"):
            raise ValueError(f'method is {self.method!r}; expected "cause" or "redo".')
        for name, most in (("fire", 1.0), ("min_rate", math.nextafter(1, 0))):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value <= most:
                raise ValueError(f"{name} is {value!r}; expected a share between 0 and 1, such as 0.5.")


class _Operation:
    """One call of `revive`, after the checks."""

    def __init__(
        self,
        model: Any,
        data: BatchedData,
        *,
        validation: BatchedData | None,
        before: Report,
        relus: list[ReluLayer],
        selected: list[str],
        options: Options,
    ) -> None:
        self.model, self.data, self.validation, self.before, self.options = model, data, validation, before, options
        self.first = FirstPass.over(model, data, relus)
        self.held_out = None if validation is None else predictions(model, validation)
        planner = Planner(model, self.first.trace, relus)
        order = {id(call.layer): i for i, call in reversed(list(enumerate(self.first.trace.calls)))}
        relus = sorted((r for r in relus if r.key in selected), key=lambda r: order.get(id(r.layer), len(order)))
        self.plans: list[LayerPlan] = []
        self.layers = {key: _untouched(before, key) for key in selected}
        self.revived: dict[str, Mask] = {}  # the neurons that are, or will be, revived
        for relu in relus:
            dead = before[relu.key].dead & ~self.first.fired.get(relu.key, np.zeros(before[relu.key].neurons, bool))
            if np.any(dead):
                self._plan(planner, relu, dead)

    def _plan(self, planner: Planner, relu: ReluLayer, dead: Mask) -> None:
        try:
            self.plans.append(planner.plan(relu))
            self.revived[relu.key] = dead
        except Left as left:
            self.layers[relu.key] = _untouched(self.before, relu.key, {str(left): np.flatnonzero(dead)})

    def run(self) -> Revival:
        edit = Edit()
        try:
            self._change(edit)
            after = measurer_of(self.model).run(self.data)
        except BaseException:  # Ctrl-C too
            edit.take_back()
            raise
        change = None
        if self.validation is not None and self.held_out is not None:
            change = largest_change(self.held_out, predictions(self.model, self.validation))
        return Revival(_sick(self.layers), self.before, after, change, edit.changes())

    def _change(self, edit: Edit) -> None:
        seeds = np.random.SeedSequence(self.options.seed).generate_state(max(len(self.plans), 1))
        treatments = [self._treat(edit, plan, int(seed >> 1)) for plan, seed in zip(self.plans, seeds)]
        for plan, done in zip(self.plans, treatments):  # now it is known which neurons were left after all
            close_gates(edit, plan, done.revived, self.revived)
        reset_slots(edit, self.model)
        if (change := largest_change(self.first.predictions, predictions(self.model, self.data))) != 0:
            raise RuntimeError(
                f"reviving {', '.join(plan.relu.key for plan in self.plans)} changed a prediction on the data by {change:.3g}; "
                "expected no change. Everything is as before. Leave layers out with layers=..."
            )

    def _treat(self, edit: Edit, plan: LayerPlan, seed: int) -> Treatment:
        """Revives the neurons of one layer. The layers before it have been treated: its neurons may wake with their input."""
        relu = plan.relu

        def read(neurons: NDArray[np.intp]) -> Any:
            return read_signals(self.model, self.data, relu, neurons)

        healer = Healer(edit, plan.incoming, read, threshold=relu.threshold, fire=self.options.fire, seed=seed)
        neurons = np.flatnonzero(self.revived[relu.key])
        try:
            done = healer.heal(neurons) if self.options.method == "cause" else healer.redraw(neurons)
        except NoSignals as unknown:
            done = Treatment.none(neurons, str(unknown))
        self.revived[relu.key] = np.isin(np.arange(len(self.revived[relu.key])), done.revived)
        close_gates(edit, plan, done.revived, self.revived)
        kept = done.action != ""
        left = {**self.layers[relu.key].left, **done.left}
        self.layers[relu.key] = LayerRevival(done.revived, done.cause[kept], done.action[kept], left)
        return done


def _sick(layers: dict[str, LayerRevival]) -> dict[str, LayerRevival]:
    """The layers with neurons that were revived or left."""
    return {key: layer for key, layer in layers.items() if len(layer.neurons) or layer.left}


def _untouched(report: Report, key: str, left: Any = None) -> LayerRevival:
    """A layer of which no neuron was revived."""
    blocked = report[key].blocked
    found = {} if blocked is None or not blocked.any() else {BLOCKED: np.flatnonzero(blocked)}
    return LayerRevival(np.arange(0), np.array([], str), np.array([], str), {**(left or {}), **found})
