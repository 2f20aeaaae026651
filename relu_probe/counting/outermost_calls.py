"""The outermost calls of a model in a loop of the user's: each is a step, in which a layer sees a sample only once."""

import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from relu_probe.counting.batch_rows import Rows
from relu_probe.counting.batch_samples import Batch, largest
from relu_probe.counting.layer_counts import LayerIncrements
from relu_probe.counting.step_trace import current_graph


class OutermostCall:
    """A call of the model that no other call of it surrounds.

    Args:
        inputs: its arguments.
    """

    def __init__(self, inputs: Any) -> None:
        self.batch, self.graph = Batch.of(inputs), current_graph()
        self._seen: dict[str, Rows] = {}

    def with_new_samples(self, layer: LayerIncrements) -> LayerIncrements:
        """Returns the increments of a layer without the samples that its earlier calls have seen: the largest call counts."""
        return layer._replace(totals=layer.totals.with_samples(lambda samples: self._new(layer.keys[0], samples)))

    def _new(self, key: str, samples: Rows) -> Rows:
        before = self._seen.get(key, 0)
        self._seen[key] = largest([before, samples])
        return self._seen[key] - before


class OutermostCalls:
    """The outermost call that each thread is in."""

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def current(self) -> OutermostCall | None:
        """The call, if operations are made in the graph in which it began."""
        call: OutermostCall | None = getattr(self._local, "call", None)
        return call if call is not None and call.graph is current_graph() else None

    @tf.autograph.experimental.do_not_convert
    def begin(self, inputs: Any) -> Callable[[], None]:
        """Notes that the model is called; returns a function that notes the end of the call."""
        if getattr(self._local, "call", None) is not None:
            return lambda: None
        self._local.call = OutermostCall(inputs)
        return self._end

    @tf.autograph.experimental.do_not_convert
    def _end(self) -> None:
        self._local.call = None
