"""How are counts kept? O(neurons) of non-trainable int64 state for each model, in the scope of its strategy.

What the calls of one training step count is gathered and added at its end, once for all layers: many small additions
cost more than one large one. A call in another graph than the step's (a loop, a nested `tf.function`) adds at once.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.layers import ReluLayer, is_frozen, nan_weights
from relu_probe.report import LayerReport

_CALLS = ("If", "StatelessIf", "While", "StatelessWhile", "PartitionedCall", "Case", "StatelessCase")


class Forward(NamedTuple):
    """What one call of a layer counted, `(neurons,)` each; positions and samples are ints where the shape is known."""

    key: str
    active: tf.Tensor
    nan: tf.Tensor
    positions: Any
    samples: Any
    activation_sum: tf.Tensor | None


class Backward(NamedTuple):
    """What one backward pass through one call found: `passes`, the positions with a gradient, not yet counted."""

    key: str
    passes: tf.Tensor
    gradient: tf.Tensor  # as it is passed on
    call: list[tf.Tensor]  # the positions of this call that are counted already: a second tape adds only new ones
    count: Callable[[tf.Tensor], tf.Tensor]  # positions -> (neurons,)


class Counters:
    """The counts of one model's ReLU layers.

    Args:
        model: gives the strategy.
        relus: the counted layers.
        activation_sum: keep the sums of the activations too.
        steps: keep the training step at which each neuron was last active.
        measuring: count also the backward passes that no training would use, and look for NaN before the activation.
    """

    def __init__(
        self,
        model: Any,
        relus: list[ReluLayer],
        *,
        activation_sum: bool = False,
        steps: bool = False,
        measuring: bool = False,
    ) -> None:
        self.relus = {relu.key: relu for relu in relus}
        self.activation_sum = activation_sum
        self.steps = steps
        self.measuring = measuring
        self.strategy = model.distribute_strategy
        self._model = weakref.ref(model)
        self.failure: Exception | None = None  # why a layer could not be counted
        self.users = 0  # of the attached probes, and what takes them off again: see probe.py
        self.detach: list[Callable[[], None]] = []
        self._blocks: dict[tuple[str, ...], _Block] = {}
        self._local = threading.local()  # each replica of a MirroredStrategy traces in a thread of its own
        self._lock = threading.RLock()
        with tf.init_scope(), self.strategy.scope():
            self.step_count = _variable(np.zeros((), np.int64), tf.VariableAggregation.ONLY_FIRST_REPLICA)

    @tf.autograph.experimental.do_not_convert
    @contextmanager
    def step(self, data: Any) -> Iterator[None]:
        """Gathers what the calls inside count, and adds it at the end, once; `data` is the step's batch."""
        if getattr(self._local, "gathered", None) is not None:  # a train_step inside a train_step
            yield
            return
        self._local.graph, self._local.gathered = _graph(), []
        try:
            yield
            gathered = self._local.gathered
        finally:
            self._local.gathered = None
        try:
            with tf.name_scope("relu_probe"):
                gathered = gathered if self.measuring else _wanted(gathered, self._local.graph)
                self._add(gathered, _batch_size(data))
                if self.steps:
                    self.step_count.assign_add(1)
        except Exception as error:  # a count never stops a training; who reads the counters is told
            self.failure = error

    @contextmanager
    def sources(self, tape: tf.GradientTape) -> Iterator[list[Any]]:
        """While measuring: the outputs of the layers, watched, so that no gradient of a weight need be computed."""
        sources: list[Any] = []
        self._local.tape, self._local.sources = tape, sources
        try:
            yield sources
        finally:
            self._local.tape = None

    def is_frozen(self, relu: ReluLayer) -> bool:
        """Whether no training could use a gradient here. A measurement asks for it all the same."""
        return not self.measuring and is_frozen(relu.layer, self._model())

    def watch(self, output: tf.Tensor) -> None:
        if (tape := getattr(self._local, "tape", None)) is not None:
            here = self._local.graph is _graph()
            tape.watch(output)
            self._local.sources.append(output if here else None)

    def record(self, tally: Forward | Backward) -> None:
        gathered = getattr(self._local, "gathered", None)
        if gathered is not None and self._local.graph is _graph():
            gathered.append(tally)
        else:
            self._add([tally])

    def _add(self, tallies: list[Forward | Backward], samples: Any = None) -> None:
        keys = tuple(key for key in self.relus if any(tally.key == key for tally in tallies))
        if not keys:
            return
        groups = [_Sums.of([t for t in tallies if t.key == key], samples) for key in keys]
        with self._lock:
            if keys not in self._blocks:
                self._blocks[keys] = _Block(self, [group.neurons for group in groups])
        self._blocks[keys].add(groups)

    def reset(self) -> None:
        """Starts counting anew; the step counter and the last active steps belong to the whole fit and stay."""
        with self.strategy.scope():
            for block in self._blocks.values():
                block.reset()

    def restart(self) -> None:
        """A fit begins."""
        with self.strategy.scope():
            self.step_count.assign(0)
            for block in self._blocks.values():
                block.reset()
                block.last.assign(tf.zeros_like(block.last))

    def read(self, keys: list[str], activation_sum: bool = True) -> dict[str, LayerReport]:
        """The global counts, of all replicas and workers: a collective, which every worker has to call."""
        with self.strategy.scope():
            blocks = [(names, block.read()) for names, block in self._blocks.items()]
        with_gradients = any(np.any(counts.backwards) for _, counts in blocks)
        layers = {
            key: self._layer(key, [c.of(names.index(key)) for names, c in blocks if key in names], with_gradients)
            for key in keys
        }
        return layers if activation_sum else {key: replace(layer, activation_sum=None) for key, layer in layers.items()}

    def _layer(self, key: str, parts: list[dict[str, Any]], with_gradients: bool) -> LayerReport:
        if not parts or not any(part["positions"] for part in parts):
            return _unseen(self.relus[key], parts)
        total = {name: sum(part[name] for part in parts) for name in parts[0]}
        reached = total["backwards"] > 0
        return LayerReport(
            samples=total["samples"],
            positions=total["positions"],
            active=total["active"],
            with_gradient=total["with_gradient"] if reached else None,
            nan=(total["nan"] > 0) | nan_weights(self.relus[key].layer, len(total["nan"])),
            activation_sum=total["activation_sum"] if self.activation_sum else None,
            last_active=np.max([part["last"] for part in parts], axis=0) - 1 if self.steps else None,
            frozen=bool(with_gradients and not reached and is_frozen(self.relus[key].layer)),
        )


class _Sums(NamedTuple):
    """The tallies of one layer, added up."""

    active: Any
    with_gradient: Any
    nan: Any
    activation_sum: Any
    positions: Any
    samples: Any
    backwards: int
    neurons: int

    @classmethod
    def of(cls, tallies: list[Forward | Backward], samples: Any = None) -> "_Sums":
        forward = [t for t in tallies if isinstance(t, Forward)]
        backward = [t for t in tallies if isinstance(t, Backward)]
        with_gradient = [_count_new(t) for t in backward]
        neurons = int((forward[0].active if forward else with_gradient[0]).shape[0])
        zero = np.zeros(neurons, np.int64)
        return cls(
            active=_sum([t.active for t in forward], zero),
            with_gradient=_sum(with_gradient, zero),
            nan=_sum([tf.cast(t.nan, tf.int64) for t in forward], zero),
            activation_sum=_sum(
                [t.activation_sum for t in forward if t.activation_sum is not None], zero.astype(float)
            ),
            positions=sum(t.positions for t in forward),
            # A shared layer called twice sees its samples twice, not twice as many (positions do add), and
            # TimeDistributed may fold time into the batch: the samples are the step's, where there is a step.
            samples=samples if forward and samples is not None else _max([t.samples for t in forward]),
            backwards=int(bool(backward)),
            neurons=neurons,
        )


def _count_new(tally: Backward) -> tf.Tensor:
    before = [mask for mask in tally.call if tf.executing_eagerly() or mask.graph is tally.passes.graph]
    tally.call.append(tally.passes | before[-1] if before else tally.passes)
    return tally.count(tally.passes & ~before[-1] if before else tally.passes)


class _Block:
    """The variables of the layers that are added together: the per-neuron counts side by side in one row each."""

    def __init__(self, counters: Counters, neurons: list[int]) -> None:
        self.counters = counters
        self.ends = np.cumsum(neurons)
        replicas = counters.strategy.num_replicas_in_sync if counters.steps else 0
        with tf.init_scope(), _creation_scope(counters.strategy):
            self.counts = _variable(np.zeros((3, self.ends[-1]), np.int64))  # active, with gradient, nan
            self.meta = _variable(np.zeros((3, len(neurons)), np.int64))  # positions, samples, backward passes
            # The step + 1 of the last activity, 0 for never. Variables aggregate by SUM, not by MAX: a row a replica.
            self.last = _variable(np.zeros((replicas, self.ends[-1]), np.int64))
            self.sums = _variable(np.zeros(self.ends[-1] if counters.activation_sum else 0, np.float64))

    def add(self, groups: list[_Sums]) -> None:
        active, with_gradient, nan = (
            tf.concat([tf.cast(getattr(g, name), tf.int64) for g in groups], 0)
            for name in ("active", "with_gradient", "nan")
        )
        self.counts.assign_add(tf.stack([active, with_gradient, nan]))
        meta = [[getattr(g, name) for g in groups] for name in ("positions", "samples", "backwards")]
        self.meta.assign_add(tf.stack([tf.stack([tf.cast(v, tf.int64) for v in row]) for row in meta]))
        if self.counters.steps:
            self._date(active)
        if self.counters.activation_sum:
            self.sums.assign_add(tf.concat([tf.cast(g.activation_sum, tf.float64) for g in groups], 0))

    def _date(self, active: tf.Tensor) -> None:
        context = tf.distribute.get_replica_context()
        replicas = self.counters.strategy.num_replicas_in_sync
        row = tf.one_hot(context.replica_id_in_sync_group if context else 0, replicas, on_value=True, off_value=False)
        now = tf.convert_to_tensor(self.counters.step_count) + 1
        fired = row[:, None] & (active > 0)[None]
        self.last.assign(tf.where(fired, now, tf.convert_to_tensor(self.last)))

    def reset(self) -> None:
        for variable in (self.counts, self.meta, self.sums):
            variable.assign(tf.zeros_like(variable))

    def read(self) -> "_Read":
        counts, meta, last, sums = (
            tf.convert_to_tensor(v).numpy() for v in (self.counts, self.meta, self.last, self.sums)
        )
        return _Read(counts, meta, last, sums, self.ends)


class _Read(NamedTuple):
    counts: Any
    meta: Any
    last: Any
    sums: Any
    ends: Any

    @property
    def backwards(self) -> Any:
        return self.meta[2]

    def of(self, index: int) -> dict[str, Any]:
        """The counts of one layer of the block."""
        part = slice(self.ends[index - 1] if index else 0, self.ends[index])
        names = ("active", "with_gradient", "nan")
        return {
            **dict(zip(names, self.counts[:, part])),
            **dict(zip(("positions", "samples", "backwards"), self.meta[:, index])),
            "last": self.last[:, part].max(axis=0, initial=0),
            "activation_sum": self.sums[part],
        }


def _unseen(relu: ReluLayer, parts: list[dict[str, Any]]) -> LayerReport:
    neurons = len(parts[0]["active"]) if parts else _width(relu)
    return LayerReport(0, 0, np.zeros(neurons, np.int64), np.zeros(neurons, np.int64))


def _width(relu: ReluLayer) -> int:
    """The neurons of a layer that was never called, 0 where its shape is not known."""
    try:
        return int(relu.layer.output.shape[relu.axis])
    except Exception:
        return int(getattr(relu.layer, "units", None) or getattr(relu.layer, "filters", None) or 0)


def _variable(value: Any, aggregation: Any = tf.VariableAggregation.SUM) -> tf.Variable:
    """Keras variables are wrong under a strategy, and float32 counters stop at 2**24."""
    return tf.Variable(
        value, trainable=False, synchronization=tf.VariableSynchronization.ON_READ, aggregation=aggregation
    )


def _creation_scope(strategy: Any) -> Any:
    """Inside a replica the strategy is at work already, and must not be entered again."""
    return (
        strategy.scope()
        if tf.distribute.in_cross_replica_context() or not tf.distribute.has_strategy()
        else nullcontext()
    )


def _graph() -> Any:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _batch_size(data: Any) -> Any:
    """The samples of a batch, an int where its shape is known; None where it does not show."""
    first = next(iter(tf.nest.flatten(data)), None)
    if isinstance(first, tf.RaggedTensor):
        return first.nrows(tf.int64)
    if not isinstance(first, tf.Tensor) or not first.shape.rank:
        return None
    return tf.shape(first, tf.int64)[0] if first.shape[0] is None else int(first.shape[0])


def _wanted(tallies: list[Forward | Backward], graph: Any) -> list[Forward | Backward]:
    """Without the backward passes whose gradient nobody uses.

    A tape walks through frozen layers too, and TensorFlow then prunes what leads nowhere; counting it would keep it
    alive: a whole backward pass through a frozen backbone. Wanted is what reaches a stateful operation (an optimizer).
    """
    if graph is None:
        return tallies
    nowhere: set[int] = set()
    return [t for t in tallies if isinstance(t, Forward) or _leads_somewhere(t.gradient, nowhere)]


def _leads_somewhere(tensor: tf.Tensor, nowhere: set[int]) -> bool:
    seen, todo = set(), [tensor]
    while todo:
        for op in todo.pop().consumers():
            if op.op_def.is_stateful or op.type in _CALLS:
                return True
            if id(op) not in seen and id(op) not in nowhere:
                seen.add(id(op))
                todo += op.outputs
    nowhere |= seen
    return False


def _sum(parts: list[Any], zero: Any) -> Any:
    return zero if not parts else parts[0] if len(parts) == 1 else tf.add_n(parts)


def _max(parts: list[Any]) -> Any:
    if all(isinstance(part, int) for part in parts):
        return max(parts, default=0)
    return parts[0] if len(parts) == 1 else tf.reduce_max(tf.stack([tf.cast(part, tf.int64) for part in parts]))
