"""One call of `revive`: which neurons, what is done to each layer, front to back, and the check that no prediction changed."""

import math
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from relu_probe.cure.edit import Edit
from relu_probe.cure.forward_pass import FirstPass, NoSignals, Signals, largest_change, predictions, read_signals
from relu_probe.cure.healer import Healer
from relu_probe.cure.optimizer_slots import reset_slots
from relu_probe.cure.outgoing import close_gates
from relu_probe.cure.plan import LayerPlan, Left, Planner
from relu_probe.cure.revival import LayerRevival, Revival
from relu_probe.cure.selection import check_samples
from relu_probe.cure.treatment import Treatment
from relu_probe.diagnosis.call_trace import CallTrace
from relu_probe.measuring.data import BatchedData
from relu_probe.measuring.measure import measurer_of
from relu_probe.report.layer_report import Mask
from relu_probe.report.report import Report
from relu_probe.structure.relu_layers import ReluLayer, find_relus
from relu_probe.utils.validation import check_confidence

Method = Literal["cause", "redo"]
BLOCKED = "blocked, not dead: they fire, and get a gradient as soon as what they feed passes one on"
IN_CODE = "the ReLU stands in the code of a layer or in a cell, so that it is not known what it feeds"


class Options(NamedTuple):
    """The arguments of `revive` other than the model and its data."""

    layers: Any = None
    method: Method = "cause"
    fire: float = 0.5
    confidence: float = 0.95
    min_rate: float = 0.05
    seed: int | tuple[int, ...] | None = None
    batch_size: int = 32

    def check(self) -> None:
        """Raises ValueError if one of them is out of range."""
        check_confidence(self.confidence)
        if self.method not in ("cause", "redo"):
            raise ValueError(f'method is {self.method!r}; expected "cause" or "redo".')
        for name, most in (("fire", 1.0), ("min_rate", math.nextafter(1, 0))):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value <= most:
                raise ValueError(f"{name} is {value!r}; expected a share between 0 and 1, such as 0.5.")

    def check_samples(self, samples: int, neurons: list[int]) -> None:
        """Raises ValueError if the samples are too few for layers with these numbers of neurons."""
        check_samples(samples, neurons, self.confidence, self.min_rate)


class Operation:
    """One call of `revive`, after the checks."""

    def __init__(
        self,
        model: Any,
        data: BatchedData,
        before: Report,
        selected: list[str],
        options: Options,
    ) -> None:
        self.model, self.data, self.before, self.options = model, data, before, options
        self.relus = find_relus(model)
        self.first = FirstPass.over(model, data, self.relus)
        self.plans: list[LayerPlan] = []
        self.layers = untouched_layers(before, selected, self.relus, options)
        self.revived: dict[str, Mask] = {}  # the neurons that are, or will be, revived
        planner = Planner(model, self.first.trace, self.relus)
        for relu in _in_order([relu for relu in self.relus if relu.key in selected], self.first.trace):
            dead = before[relu.key].dead & ~self.first.fired.get(relu.key, np.zeros(before[relu.key].neurons, bool))
            if np.any(dead):
                self._plan(planner, relu, dead)

    def _plan(self, planner: Planner, relu: ReluLayer, dead: Mask) -> None:
        try:
            self.plans.append(planner.plan(relu))
            self.revived[relu.key] = dead
        except Left as left:
            self.layers[relu.key] = untouched(self.before, relu.key, {str(left): np.flatnonzero(dead)})

    def run(self, validation: BatchedData | None) -> Revival:
        """Revives the neurons.

        Raises:
            RuntimeError: a prediction on the data would have changed. After any error everything is as before.
        """
        edit, change = Edit(), None
        held_out = None if validation is None else predictions(self.model, validation)
        try:
            self._change(edit)
            after = measurer_of(self.model).run(self.data)
            if validation is not None and held_out is not None:
                change = largest_change(held_out, predictions(self.model, validation))
        except BaseException:  # Ctrl-C too
            edit.take_back()
            raise
        layers = {key: layer for key, layer in self.layers.items() if len(layer.neurons) or layer.left}
        return Revival(layers, self.before, after, change, edit.changes())

    def _change(self, edit: Edit) -> None:
        keys = [relu.key for relu in self.relus]
        seeds = dict(zip(keys, np.random.SeedSequence(self.options.seed).generate_state(len(keys)).tolist()))
        causes = [None, *(self._causes(plan) for plan in self.plans[1:])]  # before any change
        treatments = [self._treat(edit, plan, why, seeds[plan.relu.key] >> 1) for plan, why in zip(self.plans, causes)]
        for plan, done in zip(self.plans, treatments):  # now it is known which neurons were left after all
            close_gates(edit, plan, done.revived, self.revived)
        reset_slots(edit, self.model)
        if (change := largest_change(self.first.predictions, predictions(self.model, self.data))) != 0:
            raise RuntimeError(
                f"reviving {', '.join(plan.relu.key for plan in self.plans)} changed a prediction on the data by {change:.3g}; "
                "expected no change. Everything is as before. Leave layers out with layers=..."
            )

    def _causes(self, plan: LayerPlan) -> NDArray[np.str_] | NoSignals:
        """Why each of the neurons to revive is dead; instead the reason why that cannot be computed."""
        try:
            return self._read(plan.relu, np.flatnonzero(self.revived[plan.relu.key])).causes
        except NoSignals as unknown:
            return unknown

    def _read(self, relu: ReluLayer, neurons: NDArray[np.intp]) -> Signals:
        return read_signals(self.model, self.data, relu, neurons)

    def _treat(self, edit: Edit, plan: LayerPlan, causes: NDArray[np.str_] | NoSignals | None, seed: int) -> Treatment:
        """Revives the neurons of one layer. The layers before it have been treated: its neurons may wake with their input.

        `causes` is None for the first layer, whose signals nothing has changed yet.
        """
        relu, read = plan.relu, partial(self._read, plan.relu)
        healer = Healer(edit, plan.incoming, read, threshold=relu.threshold, fire=self.options.fire, seed=seed)
        neurons = np.flatnonzero(self.revived[relu.key])
        try:
            if isinstance(causes, NoSignals):
                raise causes
            done = (healer.heal if self.options.method == "cause" else healer.redraw)(neurons, causes)
        except NoSignals as unknown:
            done = Treatment.none(neurons, str(unknown))
        self.revived[relu.key] = np.isin(np.arange(len(self.revived[relu.key])), done.revived)
        close_gates(edit, plan, done.revived, self.revived)
        kept = done.action != ""
        left = {**self.layers[relu.key].left, **done.left}
        self.layers[relu.key] = LayerRevival(done.revived, done.cause[kept], done.action[kept], left)
        return done


def _in_order(relus: list[ReluLayer], trace: CallTrace) -> list[ReluLayer]:
    """The layers in the order in which they are called, so that a follower comes after its root."""
    first = {id(call.layer): i for i, call in reversed(list(enumerate(trace.calls)))}
    return sorted(relus, key=lambda relu: first.get(id(relu.layer), len(first)))


def untouched_layers(
    before: Report, selected: list[str], relus: list[ReluLayer], options: Options
) -> dict[str, LayerRevival]:
    """The layers before the revival: the selected ones and, if none are named, those whose ReLU stands in code."""
    in_code = [] if options.layers is not None else [key for key in before if key not in {relu.key for relu in relus}]
    dead = {key: {IN_CODE: np.flatnonzero(before[key].dead)} if before[key].dead.any() else {} for key in in_code}
    return {key: untouched(before, key, dead.get(key)) for key in before if key in selected or key in dead}


def untouched(report: Report, key: str, left: Any = None) -> LayerRevival:
    """A layer of which no neuron was revived."""
    blocked = report[key].blocked
    found = {} if blocked is None or not blocked.any() else {BLOCKED: np.flatnonzero(blocked)}
    return LayerRevival(np.arange(0), np.array([], str), np.array([], str), {**(left or {}), **found})
