"""The outermost calls of a model in a loop of the user's: each is a step, in which a layer sees a sample only once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import tensorflow as tf

from relu_probe.counting.batch_rows import Rows
from relu_probe.counting.batch_samples import Batch, largest
from relu_probe.counting.eager_operations import EagerOperations
from relu_probe.counting.layer_counts import LayerIncrements
from relu_probe.counting.step_trace import current_graph
from relu_probe.structure.call_owners import is_scratch_graph


class OutermostCall:
    """A call of the model that no other call of it surrounds.

    Args:
        inputs: its arguments.
    """

    def __init__(self, inputs: Any) -> None:
        self.graph = current_graph()
        self.operations = EagerOperations() if self.graph is None else None
        self._inputs = inputs
        self._seen: dict[str, Rows] = {}

    @cached_property
    def batch(self) -> Batch:
        """The inputs as a batch."""
        return Batch.of(self._inputs, self.operations)

    def with_new_samples(self, layer: LayerIncrements) -> LayerIncrements:
        """Returns the increments of a layer without the samples that its earlier calls have seen: the largest call counts."""
        return layer.with_samples(lambda samples: self._new(layer.keys[0], samples))

    def _new(self, key: str, samples: Rows) -> Rows:
        before = self._seen.get(key, 0)
        self._seen[key] = largest([before, samples])
        return self._seen[key] - before


class OutermostCalls:
    """The outermost call that each thread is in.

    Args:
        on_begin: called at the beginning of each.
    """

    def __init__(self, on_begin: Callable[[], None]) -> None:
        self._local, self._on_begin = threading.local(), on_begin

    @property
    def current(self) -> OutermostCall | None:
        """The call, if operations are made in the graph in which it began."""
        call: OutermostCall | None = getattr(self._local, "call", None)
        return call if call is not None and call.graph is current_graph() else None

    @tf.autograph.experimental.do_not_convert
    @contextmanager
    def entered(self, inputs: Any, restorers: list[Callable[[], None]]) -> Iterator[None]:
        """Notes that the model is called on `inputs`; `restorers` as in `EagerOperations.recorded`."""
        if getattr(self._local, "call", None) is not None:
            yield
            return
        call = None
        try:
            call = self._local.call = OutermostCall(inputs)
            if not is_scratch_graph(call.graph):  # one in which Keras builds models never runs
                self._on_begin()
            with nullcontext() if call.operations is None else call.operations.recorded(restorers):
                yield
        finally:
            self._local.call = None
            if call is not None and call.operations is not None:
                call.operations.forget_values()

    def forget(self) -> None:
        """Forgets calls whose ends an interrupt has kept from being noted."""
        self._local = threading.local()
