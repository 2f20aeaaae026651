"""Agreement between the processes that train the same model."""

from typing import Any

import numpy as np
import tensorflow as tf


def has_several_workers(strategy: Any) -> bool:
    """Whether other processes train the same model."""
    cluster = None if strategy.cluster_resolver is None else strategy.cluster_resolver.cluster_spec()
    return cluster is not None and sum(cluster.num_tasks(job) for job in cluster.jobs) > 1


def is_chief(strategy: Any) -> bool:
    """Whether this process is the one that writes files and prints."""
    return bool(strategy.extended.should_save_summary)


def found_by_any(strategy: Any, found: bool) -> bool:
    """Whether `found` is True on any worker.

    With several workers this is a collective: each worker waits for all others, so all must call it at the same point.
    """
    if not has_several_workers(strategy):
        return found
    number = np.array(found, np.int32)
    each = strategy.experimental_distribute_values_from_function(lambda replica: tf.constant(number))
    return bool(strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None) > 0)
