"""The values of a TensorBoard event: scalars, histograms and images.

They are made without TensorFlow's operations, which take a millisecond for each value: a model of 500 layers has 3,000.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE, DT_FLOAT, DT_STRING
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata

from relu_probe.report.layer_report import Floats
from relu_probe.tensorboard.png import encode_png

# TensorBoard's page sorts the buckets that it gets into 30 bins of equal width. So it leaves these as they are.
BUCKETS = 30
_WIDTH = 1 / (BUCKETS - 1)
# The first bucket, [-1/29, 0], holds exactly the zeros; the other 29 cover (0, 1].
EDGES = np.linspace(-_WIDTH, 1.0, BUCKETS + 1)
_AT_ONCE = 2**16  # neurons that are sorted into buckets at once


def scalar_value(tag: str, value: float, description: str) -> Any:
    """Returns a `Summary.Value` with a float32."""
    return _value(tag, TensorProto(dtype=DT_FLOAT, float_val=[value]), "scalars", description)


def histogram_value(tag: str, rates: Floats, description: str) -> Any:
    """Returns a `Summary.Value` with the histogram of rates `(neurons,)` in [0, 1]."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in (BUCKETS, 3)])
    tensor = TensorProto(dtype=DT_DOUBLE, tensor_shape=shape, tensor_content=histogram(rates).astype("<f8").tobytes())
    return _value(tag, tensor, "histograms", description)


def image_value(tag: str, image: NDArray[np.uint8], description: str, shared: int = 0) -> Any:
    """Returns a `Summary.Value` with one image `(height, width, 3)`; `shared` as for `encode_png`."""
    height, width, _ = image.shape
    parts = [str(width).encode(), str(height).encode(), encode_png(image, shared)]
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(parts))])
    return _value(tag, TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=parts), "images", description)


def histogram(rates: Floats) -> Floats:
    """Returns `(30, 3)` buckets (left, right, count) of rates `(neurons,)` in [0, 1]; the first holds exactly the zeros.

    >>> histogram(np.array([0.0, 0.0, 1e-9, 1.0]))[[0, 1, -1], 2]
    array([2., 1., 1.])
    """
    counts = np.zeros(BUCKETS, np.int64)
    for start in range(0, len(rates), _AT_ONCE):
        # Right-closed buckets, so that a neuron that is rarely active is not counted with the zeros.
        index = np.ceil(rates[start : start + _AT_ONCE] / _WIDTH).astype(np.int64)
        counts += np.bincount(np.minimum(index, BUCKETS - 1), minlength=BUCKETS)
    buckets = np.empty((BUCKETS, 3))
    buckets[:, 0], buckets[:, 1], buckets[:, 2] = EDGES[:-1], EDGES[1:], counts
    return buckets


def _value(tag: str, tensor: Any, plugin: str, description: str) -> Any:
    about = SummaryMetadata(summary_description=description, plugin_data=_plugin_data(plugin))
    return Summary.Value(tag=tag, tensor=tensor, metadata=about)


@cache
def _plugin_data(plugin: str) -> Any:
    plugins = {"scalars": scalar_metadata, "histograms": histogram_metadata, "images": image_metadata}
    return plugins[plugin].create_summary_metadata(display_name=None, description=None).plugin_data
