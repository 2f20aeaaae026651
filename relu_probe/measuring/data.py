"""Reads arrays, batched datasets and PyDatasets as one kind of data: a batched `tf.data.Dataset`."""

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.utils.validation import check_positive

_EXPECTED = "expected arrays (x, (x,), (x, y) or (x, y, sample_weight)), a batched tf.data.Dataset or a PyDataset"


class BatchedData(NamedTuple):
    """Data to measure on.

    Args:
        dataset: batches of `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
        steps: the number of batches, None if it is not known.
        labelled: whether batches have a y.
    """

    dataset: tf.data.Dataset
    steps: int | None
    labelled: bool


def read_batches(data: Any, batch_size: int = 32, max_samples: int | None = None) -> BatchedData:
    """Returns `data` in batches, cut to exactly `max_samples` samples if it has more.

    Args:
        data: as `measure` takes it.
        batch_size: samples in each batch, for arrays.
        max_samples: None for all.

    Raises:
        ValueError: the data is empty, infinite without `max_samples`, of unequal lengths, or of no known kind.
    """
    batch_size = min(check_positive("batch_size", batch_size), 2**31)
    if max_samples is not None:
        max_samples = min(check_positive("max_samples", max_samples), 2**62)
    if isinstance(data, tf.data.Dataset):
        return _from_dataset(data, max_samples)
    if hasattr(data, "__getitem__") and hasattr(data, "on_epoch_end"):  # PyDataset, and tf_keras' Sequence
        return _from_dataset(_from_pydataset(data), max_samples, getattr(data, "num_batches", None) or len(data))
    return _from_arrays(data, batch_size, max_samples)


def _from_arrays(data: Any, batch_size: int, max_samples: int | None) -> BatchedData:
    parts = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"data is a tuple of {len(parts)}; {_EXPECTED}.")
    if len(parts) > 1 and parts[1] is None:
        raise ValueError(
            "data has no labels (y is None), so no gradients; expected y. Pass (x, y), or x alone for activations only."
        )
    arrays = tuple(_as_arrays(part) for part in (parts[:2] if len(parts) == 3 and parts[2] is None else parts))
    sizes = {int(a.shape[0]) for a in tf.nest.flatten(arrays)}
    if len(sizes) != 1:
        raise ValueError(
            f"the arrays of data have {sorted(sizes)} samples; expected equally many in each. Cut them to one length."
        )
    samples = min(sizes.pop(), max_samples or 2**62)
    if not samples:
        raise ValueError("data is empty (0 samples); expected at least 1. Check the split or filter that made it.")
    starts = tf.data.Dataset.range(0, samples, batch_size)
    # Slices are faster than from_tensor_slices and batch, which take the arrays apart sample by sample.
    dataset = starts.map(
        lambda i: tf.nest.map_structure(lambda a: _array_rows(a, i, tf.minimum(i + batch_size, samples)), arrays)
    )
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return BatchedData(dataset.with_options(options), -(-samples // batch_size), len(arrays) > 1)


def _from_dataset(dataset: Any, max_samples: int | None, steps: int | None = None) -> BatchedData:
    spec = dataset.element_spec
    if not isinstance(spec, tuple):
        dataset, spec = dataset.map(lambda *x: (x[0] if len(x) == 1 else x,)), (spec,)
    known = int(dataset.cardinality()) if steps is None else steps
    if known == tf.data.INFINITE_CARDINALITY and max_samples is None:
        raise ValueError("data is infinite; expected a finite dataset. Pass max_samples=..., or dataset.take(batches).")
    if known == 0:
        raise ValueError("data is empty (0 batches); expected at least 1. Check the split or filter that made it.")
    if max_samples is not None:
        dataset, known = _trimmed(dataset, max_samples), -1
    return BatchedData(dataset, known if known > 0 else None, len(spec) > 1)


def _trimmed(dataset: Any, limit: int) -> Any:
    """Returns the first `limit` samples, for one pass: whole batches, and a part of the last one.

    What is left is a variable: `Dataset.scan`, made for this, leaks its function [TensorFlow 2.16 to 2.21].
    """
    with tf.device("CPU"):
        left = tf.Variable(limit, dtype=tf.int64, trainable=False)

    def cut(*batch: Any) -> Any:
        before = tf.identity(left)
        keep = tf.minimum(tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0], before)
        left.assign_sub(keep)
        return before > 0, tf.nest.map_structure(lambda t: t[:keep], batch)

    return dataset.map(cut).take_while(lambda more, batch: more).map(lambda more, batch: batch)


def _from_pydataset(data: Any) -> Any:
    count = getattr(data, "num_batches", None) or len(data)
    first = _as_tuple(data[0])
    others = []
    for index in sorted({1, count - 1} & set(range(1, count))):
        with suppress(Exception):  # the measurement will raise it
            others.append(tf.nest.flatten(_as_tuple(data[index])))
    spec = tuple(_spec(*leaves) for leaves in zip(tf.nest.flatten(first), *others))

    def batches() -> Any:
        for index in range(count):
            yield tuple(np.asarray(leaf) for leaf in tf.nest.flatten(_as_tuple(data[index])))

    flat = tf.data.Dataset.from_generator(batches, output_signature=spec)
    return flat.map(lambda *leaves: tf.nest.pack_sequence_as(_lists_as_tuples(first), leaves))


def _spec(*leaves: Any) -> tf.TensorSpec:
    """The spec of one array in several batches: axes whose size differs (lengths of sequences) are None.

    The other sizes stay known: a Dense needs its last axis. `fit` decides by the first two batches.
    """
    same = (sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*(np.shape(leaf)[1:] for leaf in leaves)))
    return tf.TensorSpec((None, *same), tf.as_dtype(np.asarray(leaves[0]).dtype))


def _as_tuple(batch: Any) -> tuple[Any, ...]:
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)  # as in `fit`


def _as_arrays(value: Any) -> Any:
    """Converts the leaves as `fit` does: to tensors, floats to Keras's float type, lists of arrays to tuples."""
    if isinstance(value, dict):
        return {key: _as_arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not all(isinstance(leaf, (int, float)) for leaf in tf.nest.flatten(value)):
        return tuple(_as_arrays(item) for item in value)
    if isinstance(value, tf.RaggedTensor):
        return value
    if isinstance(value, tf.SparseTensor):
        raise ValueError("data is a SparseTensor; expected dense arrays. Pass tf.sparse.to_dense(x).")
    if hasattr(value, "__next__") or callable(value):
        raise ValueError(f"data is a {type(value).__name__}, which cannot be read more than once; {_EXPECTED}.")
    if isinstance(value, np.memmap):
        return value  # is read batch by batch: it may be larger than memory
    array = value if tf.is_tensor(value) else np.asarray(value)
    if not len(array.shape) or (not tf.is_tensor(array) and array.dtype == object):
        raise ValueError(f"data is {value!r:.60} ({type(value).__name__}); {_EXPECTED}.")
    if not tf.is_tensor(array) and array.dtype.kind in "mM":
        raise ValueError(
            f"data has times (dtype {array.dtype}), which TensorFlow does not know; expected numbers. Pass seconds, as "
            'x.astype("datetime64[s]").astype("float64"), or a time difference divided by np.timedelta64(1, "s").'
        )
    return array if tf.is_tensor(array) else tf.convert_to_tensor(array.astype(_dtype(array), copy=False))


def _dtype(array: Any) -> np.dtype[Any]:
    return np.dtype(tf.keras.backend.floatx()) if array.dtype.kind == "f" else array.dtype.newbyteorder("=")


def _array_rows(array: Any, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    if tf.is_tensor(array):
        return array[start:end]
    dtype = _dtype(array)
    rows = tf.numpy_function(lambda i, j: np.array(array[i:j], dtype), (start, end), tf.as_dtype(dtype))
    return tf.ensure_shape(rows, (None, *array.shape[1:]))


def _lists_as_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists_as_tuples(item) for key, item in value.items()}
    return tuple(_lists_as_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
