"""Reading of .npz files: the same arrays as NumPy's, memory-mapped if they are not compressed."""

import tracemalloc
from zipfile import ZipFile

import numpy as np
import pytest
import tensorflow as tf
from models import sequential

from relu_probe import measure
from relu_probe.cli.data_file import load_npz

pytestmark = pytest.mark.any_keras

X = np.random.default_rng(0).normal(size=(103, 4, 3))
Y = np.arange(103) % 2


@pytest.fixture
def model():
    layers = [tf.keras.layers.Flatten(), tf.keras.layers.Dense(9, "relu"), tf.keras.layers.Dense(2)]
    return sequential((4, 3), *layers, loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "x",
    [X, np.asfortranarray(X), X[::2], X.astype(">f4"), X.astype("u1"), X[:0]],
    ids=lambda x: f"{x.dtype}{x.flags.f_contiguous}",
)
def test_arrays_come_back_as_saved(tmp_path, save, x):
    save(tmp_path / "a.npz", other=Y, y=Y, x=x)
    loaded = load_npz(tmp_path / "a.npz")
    assert isinstance(loaded[0], np.memmap) == (save is np.savez and len(x) > 0)
    for array, expected in zip(loaded, (x, Y), strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_x_alone(tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    assert len(load_npz(tmp_path / "a.npz")) == 1


def test_mapped_arrays_give_the_same_report_as_arrays_in_memory(tmp_path, model):
    whole = measure(model, (X, Y))
    for x, y in ((X, Y), (np.asfortranarray(X), Y.astype(">i4")), (X.astype(">f8"), Y.astype("u1"))):
        np.savez(tmp_path / "a.npz", x=x, y=y)
        data = load_npz(tmp_path / "a.npz")
        assert measure(model, data, batch_size=10) == whole
        assert measure(model, data, batch_size=10, max_samples=42) == measure(model, (X[:42], Y[:42])) != whole


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (
            np.float32(3),
            r"holds a single value \(float32\); expected an array with a row for each sample. Save {x}\[np.n",
        ),
        (
            X[:, 0, 0].astype("M8[s]"),
            r"holds times \(datetime64\[s\]\); expected numbers. Save \({x} - {x}.min\(\)\) /",
        ),
        (
            X[:, 0, 0].astype("m8[s]"),
            r"holds durations \(timedelta64\[s\]\); expected numbers. Save {x} / np.timedelta",
        ),
        (np.zeros(3, "i4,f4"), r"holds records or raw bytes \(\[\('f0', '<i4'\), .*\); expected numbers. Save np.lib"),
        (
            tf.cast(X, tf.bfloat16).numpy(),
            r"holds records or raw bytes \(\|V2\); expected numbers. .* for bfloat16, {x}",
        ),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_by_name(tmp_path, x, text):
    for name, arrays in {"x": {"x": x}, "y": {"x": X, "y": x}}.items():
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(ValueError, match=rf"{name}\.npy {text.format(x=name)}"):
            load_npz(tmp_path / "a.npz")


def test_mapped_arrays_of_unequal_lengths(tmp_path, model):
    np.savez(tmp_path / "a.npz", x=X, y=Y[:-1])
    with pytest.raises(
        ValueError, match=r"the arrays of data have \[102, 103\] samples; expected equally many in each"
    ):
        measure(model, load_npz(tmp_path / "a.npz"))


def peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_mapped_file_may_be_larger_than_memory(tmp_path, model):
    """NumPy holds at most a few batches of a mapped file in memory, but all of a compressed one."""
    x = np.zeros((200_000, 4, 3))
    np.savez(tmp_path / "mapped.npz", x=x)
    np.savez_compressed(tmp_path / "packed.npz", x=x)
    measure(model, x[:1000], batch_size=1000)
    mapped = peak(lambda: measure(model, load_npz(tmp_path / "mapped.npz"), batch_size=1000))
    packed = peak(lambda: measure(model, load_npz(tmp_path / "packed.npz"), batch_size=1000))
    assert mapped < x.nbytes / 4
    assert packed > x.nbytes


def test_an_array_that_is_cut_off_is_refused(tmp_path):
    """A map past the end of the array would read the bytes of the next member of the file."""
    np.savez(tmp_path / "whole.npz", x=X, y=Y)
    with ZipFile(tmp_path / "whole.npz") as whole, ZipFile(tmp_path / "cut.npz", "w") as cut:
        for name in ("x.npy", "y.npy"):
            cut.writestr(name, whole.read(name)[: -400 if name == "x.npy" else None])
    with pytest.raises(
        ValueError, match=r"x\.npy has 9,488 bytes of numbers; expected 9,888 for float64 of shape \(103"
    ):
        load_npz(tmp_path / "cut.npz")
