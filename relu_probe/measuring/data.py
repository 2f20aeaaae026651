"""What data may be measured on? Arrays, batched datasets and PyDatasets, all made one: a batched `tf.data.Dataset`."""

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from relu_probe.utils.validation import is_whole

_EXPECTED = "expected arrays (x, (x,), (x, y) or (x, y, sample_weight)), a batched tf.data.Dataset or a PyDataset"


class BatchedData(NamedTuple):
    """BatchedData of `(x,)`, `(x, y)` or `(x, y, sample_weight)`; `steps` is None where their number is not known."""

    dataset: tf.data.Dataset
    steps: int | None
    labelled: bool


def read_batches(data: Any, batch_size: int = 32, max_samples: int | None = None) -> BatchedData:
    """`data` as batches, at most `max_samples` of it, exactly.

    Raises:
        ValueError: the data is empty, infinite without `max_samples`, of unequal lengths, or of no known kind.
    """
    _positive("batch_size", batch_size)
    if max_samples is not None:
        _positive("max_samples", max_samples)
        max_samples = min(int(max_samples), 2**62)
    batch_size = min(int(batch_size), 2**31)
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
            "data has no labels (y is None), so no gradients; pass (x, y), or x alone for activations only."
        )
    arrays = tuple(_to_arrays(part) for part in (parts[:2] if len(parts) == 3 and parts[2] is None else parts))
    sizes = {int(a.shape[0]) for a in tf.nest.flatten(arrays)}
    if len(sizes) != 1:
        raise ValueError(
            f"the arrays of data have {sorted(sizes)} samples; expected as many in each. Cut them to one length."
        )
    samples = min(sizes.pop(), max_samples or 2**62)
    if not samples:
        raise ValueError("data is empty (0 samples); expected at least 1. Check the split or filter that made it.")
    starts = tf.data.Dataset.range(0, samples, batch_size)
    # Slices, not from_tensor_slices: the arrays are not taken apart and put together again sample by sample.
    dataset = starts.map(
        lambda i: tf.nest.map_structure(lambda a: _rows(a, i, tf.minimum(i + batch_size, samples)), arrays)
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
        raise ValueError("data is infinite; expected an end. Pass max_samples=..., or dataset.take(batches).")
    if known == 0:
        raise ValueError("data is empty (0 batches); expected at least 1. Check the split or filter that made it.")
    if max_samples is not None:
        dataset, known = _trimmed(dataset, max_samples), -1
    return BatchedData(dataset, known if known > 0 else None, len(spec) > 1)


def _trimmed(dataset: Any, limit: int) -> Any:
    """The first `limit` samples: whole batches, and what is missing of the last one."""

    def cut(seen: tf.Tensor, batch: Any) -> tuple[Any, Any]:
        size = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
        keep = tf.minimum(size, limit - seen)
        return seen + keep, (limit - seen, tf.nest.map_structure(lambda t: t[:keep], batch))

    pairs = dataset.scan(tf.constant(0, tf.int64), cut).take_while(lambda left, batch: left > 0)
    return pairs.map(lambda left, batch: batch)


def _from_pydataset(data: Any) -> Any:
    count = getattr(data, "num_batches", None) or len(data)
    first = _as_tuple(data[0])
    others = []
    for index in sorted({1, count - 1} & set(range(1, count))):
        with suppress(Exception):  # told when it is measured on
            others.append(tf.nest.flatten(_as_tuple(data[index])))
    spec = tuple(_spec(*leaves) for leaves in zip(tf.nest.flatten(first), *others))

    def batches() -> Any:
        for index in range(count):
            yield tuple(np.asarray(leaf) for leaf in tf.nest.flatten(_as_tuple(data[index])))

    flat = tf.data.Dataset.from_generator(batches, output_signature=spec)
    return flat.map(lambda *leaves: tf.nest.pack_sequence_as(_tuples(first), leaves))


def _spec(*leaves: Any) -> tf.TensorSpec:
    """Of a leaf in several batches: what differs is not fixed (lengths of sequences), what does not stays known, since a
    Dense needs its last axis. `fit` goes by the first two batches."""
    same = (sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*(np.shape(leaf)[1:] for leaf in leaves)))
    return tf.TensorSpec((None, *same), tf.as_dtype(np.asarray(leaves[0]).dtype))


def _as_tuple(batch: Any) -> tuple[Any, ...]:
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)  # as `fit` takes them


def _to_arrays(value: Any) -> Any:
    """The leaves as arrays, floats in Keras's own float type, lists as tuples, as `fit` makes them."""
    if isinstance(value, dict):
        return {key: _to_arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not all(isinstance(leaf, (int, float)) for leaf in tf.nest.flatten(value)):
        return tuple(_to_arrays(item) for item in value)
    if isinstance(value, tf.RaggedTensor):
        return value
    if isinstance(value, tf.SparseTensor):
        raise ValueError("data is a SparseTensor; expected dense arrays. Pass tf.sparse.to_dense(x).")
    if hasattr(value, "__next__") or callable(value):
        raise ValueError(f"data is a {type(value).__name__}, which can be read once or not at all; {_EXPECTED}.")
    if isinstance(value, np.memmap):
        return value  # read batch by batch: it may be larger than memory
    array = value if tf.is_tensor(value) else np.asarray(value)
    if not len(array.shape) or array.dtype == object:
        raise ValueError(f"data is {value!r:.60} ({type(value).__name__}); {_EXPECTED}.")
    return array if tf.is_tensor(array) else tf.convert_to_tensor(array.astype(_dtype(array), copy=False))


def _dtype(array: Any) -> np.dtype[Any]:
    return np.dtype(tf.keras.backend.floatx()) if array.dtype.kind == "f" else array.dtype.newbyteorder("=")


def _rows(array: Any, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    if tf.is_tensor(array):
        return array[start:end]
    dtype = _dtype(array)
    rows = tf.numpy_function(lambda i, j: np.array(array[i:j], dtype), (start, end), tf.as_dtype(dtype))
    return tf.ensure_shape(rows, (None, *array.shape[1:]))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _positive(name: str, value: Any) -> None:
    if not is_whole(value):
        raise ValueError(f"{name} is {value!r}; expected a whole number >= 1.")
