"""Which operations of a traced step are run: those that the result of the step, or a change of a variable, depends on."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

_FUNCTION_CALLS = ("If", "StatelessIf", "While", "StatelessWhile", "PartitionedCall", "Case", "StatelessCase")


class UsedOperations:
    """Tells whether a tensor is used. TensorFlow prunes all others, and a count of them would keep them alive.

    A tape goes through frozen layers, too, and Keras traces the cell of an RNN once outside of its loop. A tensor is used if
    it reaches a stateful operation, such as the update of a weight, or a result. Tensors of an eager step are those of its record.

    Args:
        results: the tensors that the step returns or computes for their own sake.
    """

    def __init__(self, results: Iterable[Any] = ()) -> None:
        self._results = {id(each.op) for each in results if isinstance(each, tf.Tensor)}
        self._known: dict[int, bool] = {}

    def __contains__(self, tensor: tf.Tensor) -> bool:
        return self._ends(tensor.op) or self._is_used(tensor.op)

    def _ends(self, op: tf.Operation) -> bool:
        return id(op) in self._results

    def _is_used(self, op: tf.Operation) -> bool:
        """Follows the consumers, depth first. What is found is kept, so that no operation is visited twice."""
        path = [(op, iter(_consumers(op)))]
        while path:
            op, consumers = path[-1]
            for each in consumers:
                known = self._known.get(id(each))
                if known or self._ends(each) or each.type in _FUNCTION_CALLS or each.op_def.is_stateful:
                    self._known.update((id(one), True) for one, _ in path)
                    return True
                if known is None:
                    path.append((each, iter(_consumers(each))))
                    break
            else:
                self._known[id(op)] = False
                path.pop()
        return False


def _consumers(op: tf.Operation) -> list[tf.Operation]:
    return [each for output in op.outputs for each in output.consumers()]
