"""The kinds of data: `fit` counts every batch that is trained, `measure` counts all samples."""

import math
import re
from dataclasses import replace

import numpy as np
import oracle
import pytest
import tensorflow as tf
from assertions import assert_report
from child_process import output
from models import sequential, two_hidden_layers

from relu_probe import ReluProbe, measure
from relu_probe.measuring.data import read_batches

K, L = tf.keras, tf.keras.layers
N, BATCH = 23, 8  # the last batch is a partial one
STEPS = math.ceil(N / BATCH)


def arrays():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, 4)).astype("f"), rng.integers(0, 2, (N, 1)).astype("f")


@pytest.fixture
def model():
    return two_hidden_layers()


def expected_of(model, x, y):
    return oracle.measure(model, oracle.batches(x, y, BATCH))


class Batched(K.utils.Sequence):
    """`PyDataset`, which tf_keras calls `Sequence`; `parts` are its arrays."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        rows = slice(index * BATCH, (index + 1) * BATCH)
        batch = tuple(part[rows] for part in self.parts)
        return batch if len(batch) > 1 else batch[0]


def dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(BATCH)


def generator(x, y, forever=True):
    while True:
        yield from zip(*(np.array_split(part, range(BATCH, N, BATCH)) for part in (x, y)))
        if not forever:
            return


def frames(x, y):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(x, columns=list("abcd")), pandas.DataFrame(y)


FIT = {
    "NumPy": lambda x, y: ((x, y), {"batch_size": BATCH}),
    "tensors": lambda x, y: ((tf.constant(x), tf.constant(y)), {"batch_size": BATCH}),
    "float64 and integers": lambda x, y: ((x.astype(float), y.astype(int)), {"batch_size": BATCH}),
    "pandas": lambda x, y: (frames(x, y), {"batch_size": BATCH}),
    "tf.data": lambda x, y: ((dataset(x, y),), {}),
    "tf.data, cached and prefetched": lambda x, y: ((dataset(x, y).cache().prefetch(2),), {}),
    "tf.data without end": lambda x, y: ((dataset(x, y).repeat(),), {"steps_per_epoch": STEPS}),
    "PyDataset": lambda x, y: ((Batched(x, y),), {}),
    "generator": lambda x, y: ((generator(x, y),), {"steps_per_epoch": STEPS}),
}


@pytest.mark.parametrize("kind", list(FIT))
def test_fit_counts_every_batch_of_every_kind(kind, model):
    (x, y), probe = arrays(), ReluProbe(strict=True)
    args, more = FIT[kind](x, y)
    model.fit(*args, **more, epochs=2, shuffle=False, verbose=0, callbacks=[probe])
    assert len(probe.reports) == 2
    for report in probe.reports:
        assert_report(report, expected_of(model, x, y), N)


def test_a_generator_that_ends(model):
    (x, y), probe = arrays(), ReluProbe(strict=True)
    model.fit(generator(x, y, forever=False), steps_per_epoch=STEPS, shuffle=False, verbose=0, callbacks=[probe])
    assert_report(probe.report, expected_of(model, x, y), N)


def test_shuffled_data_counts_the_same(model):
    (x, y), probe = arrays(), ReluProbe(strict=True)
    model.fit(x, y, batch_size=5, epochs=2, verbose=0, callbacks=[probe])
    for report in probe.reports:
        assert_report(report, expected_of(model, x, y), N)


def test_only_the_steps_of_the_epoch_count(model):
    """The dataset repeats without end; each epoch takes one step, on other samples than the epoch before."""
    (x, y), probe = arrays(), ReluProbe(strict=True)
    x, y = x[:16], y[:16]
    model.fit(dataset(x, y).repeat(), steps_per_epoch=1, epochs=2, shuffle=False, verbose=0, callbacks=[probe])
    for report, part in zip(probe.reports, (slice(0, 8), slice(8, 16))):
        assert_report(report, expected_of(model, x[part], y[part]), 8)


def test_validation_batches_do_not_count(model):
    (x, y), probe = arrays(), ReluProbe(strict=True)
    model.fit(x, y, batch_size=BATCH, validation_split=0.3, verbose=0, callbacks=[probe])
    kept = int(N * (1 - 0.3))
    assert_report(probe.report, expected_of(model, x[:kept], y[:kept]), kept)


def weighed(model, x, y, weights):
    """The expected counts: activity on every sample, gradients only from samples whose weight is not zero."""
    everything, some = expected_of(model, x, y), expected_of(model, x[weights != 0], y[weights != 0])
    return {key: {**everything[key], "with_gradient": some[key]["with_gradient"]} for key in everything}


def weights():
    return np.random.default_rng(1).integers(0, 2, N).astype("f")


@pytest.mark.parametrize("kind", ["NumPy", "tf.data", "PyDataset"])
def test_sample_weights_of_zero_pass_no_gradient(kind, model):
    (x, y), w, probe = arrays(), weights(), ReluProbe(strict=True)
    expected = weighed(model, x, y, w)
    if kind == "NumPy":
        model.fit(x, y, sample_weight=w, batch_size=BATCH, verbose=0, callbacks=[probe])
    else:
        data = dataset(x, y, w) if kind == "tf.data" else Batched(x, y, w)
        model.fit(data, shuffle=False, verbose=0, callbacks=[probe])
    assert_report(probe.report, expected, N)
    assert (expected["a"]["with_gradient"] < expected["a"]["active"]).any()  # the weights make a difference
    for data in ((x, y, w), dataset(x, y, w), Batched(x, y, w)):
        assert_report(measure(model, data), expected, N)
    with pytest.raises(AssertionError):
        assert_report(measure(model, (x, y)), expected, N)


def test_a_class_of_weight_zero_passes_no_gradient(model):
    (x, y), probe = arrays(), ReluProbe(strict=True)
    expected = weighed(model, x, y, y[:, 0])
    model.fit(x, y, class_weight={0: 0.0, 1: 2.0}, batch_size=BATCH, verbose=0, callbacks=[probe])
    assert_report(probe.report, expected, N)


# --- measure ----------------------------------------------------------------------------------------------------------

LABELLED = {
    "NumPy": lambda x, y: (x, y),
    "tensors": lambda x, y: (tf.constant(x), tf.constant(y)),
    "lists": lambda x, y: (x.tolist(), y.tolist()),
    "float64 and integers": lambda x, y: (x.astype(float), y.astype(int)),
    "pandas": frames,
    "a pandas Series": lambda x, y: (frames(x, y)[0], frames(x, y)[1][0]),
    "tf.data": dataset,
    "tf.data of unknown length": lambda x, y: dataset(x, y).filter(lambda *batch: True),
    "PyDataset": Batched,
    "None for weights": lambda x, y: (x, y, None),
}
UNLABELLED = {
    "NumPy": lambda x: x,
    "a tuple": lambda x: (x,),
    "tensors": tf.constant,
    "pandas": lambda x: frames(x, x)[0],
    "tf.data": dataset,
    "PyDataset": Batched,
}


@pytest.mark.parametrize("kind", list(LABELLED))
def test_measure_counts_all_samples_of_every_kind(kind, model):
    x, y = arrays()
    report = measure(model, LABELLED[kind](x, y), batch_size=7)
    assert_report(report, expected_of(model, x, y), N)


@pytest.mark.parametrize("kind", list(UNLABELLED))
def test_measure_without_labels_counts_activations_only(kind, model):
    x, y = arrays()
    expected = {key: {**counts, "with_gradient": None} for key, counts in expected_of(model, x, y).items()}
    assert_report(measure(model, UNLABELLED[kind](x), batch_size=7), expected, N)


@pytest.mark.parametrize("kind", ["NumPy", "tensors", "pandas", "tf.data", "PyDataset"])
@pytest.mark.parametrize("limit", [1, 8, 13, N, 100])
def test_max_samples_is_exact(kind, limit, model):
    x, y = arrays()
    kept = min(limit, N)
    report = measure(model, LABELLED[kind](x, y), batch_size=BATCH, max_samples=limit)
    assert_report(report, expected_of(model, x[:kept], y[:kept]), kept)


def test_max_samples_ends_an_infinite_dataset(model):
    x, y = arrays()
    report = measure(model, dataset(x, y).repeat(), max_samples=N)
    assert_report(report, expected_of(model, x, y), N)


def test_dicts_and_lists_are_inputs():
    x, _ = arrays()
    one, two = K.Input((4,), name="one"), K.Input((4,), name="two")
    hidden = L.Dense(3, "relu", name="hidden")(L.Subtract()([one, two]))
    for built, data in (
        (K.Model({"one": one, "two": two}, hidden), {"one": x, "two": -x}),
        (K.Model([one, two], hidden), [x, -x]),
    ):
        active = (2 * x @ built.get_weights()[0] > 0).sum(axis=0)
        for given in (data, (data,)):
            assert measure(built, given)["hidden"].active.tolist() == active.tolist()
    data = tf.data.Dataset.from_tensor_slices({"one": x, "two": -x}).batch(5)
    assert measure(K.Model({"one": one, "two": two}, hidden), data)["hidden"].active.tolist() == active.tolist()


@pytest.mark.once
@pytest.mark.parametrize("mistake", ["the last batch dropped", "a batch twice", "the first sample lost"])
def test_the_comparison_rejects(mistake, model):
    x, y = arrays()
    rows = {
        "the last batch dropped": range(16),
        "a batch twice": [*range(8), *range(N)],
        "the first sample lost": range(1, N),
    }
    wrong = measure(model, (x[list(rows[mistake])], y[list(rows[mistake])]))
    with pytest.raises(AssertionError):
        assert_report(wrong, expected_of(model, x, y), N)


def test_the_probe_measures_every_kind_too(model):
    x, y = arrays()
    for kind in ("NumPy", "tf.data", "PyDataset", "pandas"):
        probe = ReluProbe(data=LABELLED[kind](x, y), strict=True)
        model.fit(x[:8], y[:8], epochs=2, verbose=0, callbacks=[probe])
        for report in probe.reports:
            assert_report(report, expected_of(model, x, y), N)


class Failing(Batched):
    def __getitem__(self, index):
        if index == 1:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


def test_an_error_in_the_data_reaches_the_user(model):
    x, y = arrays()
    with pytest.raises(Exception, match="the disk is gone"):
        measure(model, Failing(x, y))
    with pytest.warns(UserWarning, match=r"(?s)measuring stopped: .*the disk is gone"):
        model.fit(x, y, verbose=0, callbacks=[ReluProbe(data=Failing(x, y))])


class Lengths(K.utils.Sequence):
    """Sequences `(4, length, 3)` with another length in each batch."""

    def __init__(self, lengths):
        super().__init__()
        self.lengths = lengths

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        shape = (4, self.lengths[index], 3)
        return np.random.default_rng(index).standard_normal(shape).astype("f"), np.ones((4, 1), "f")


@pytest.mark.parametrize("lengths", [(5, 6, 5), (5, 5, 6), (5,)])
def test_sequences_whose_length_differs_between_batches(lengths):
    layers = [L.Dense(6, "relu", name="hidden"), L.GlobalAveragePooling1D(), L.Dense(1)]
    model, data = sequential((None, 3), *layers), Lengths(lengths)
    report, active = measure(model, data), 0
    for index in range(len(data)):
        active = active + np.sum(model.layers[0](data[index][0]).numpy() > 0, axis=(0, 1))
    assert report["hidden"].active.tolist() == active.tolist()
    assert report["hidden"].positions == 4 * sum(lengths)


def test_equal_lengths_stay_known():
    """A Dense layer behind a Flatten needs the length."""
    model = sequential((5, 3), L.Flatten(), L.Dense(6, "relu", name="hidden"), L.Dense(1))
    assert measure(model, Lengths((5, 5, 5))).samples == 12
    assert read_batches(Lengths((5, 5))).dataset.element_spec[0].shape.as_list() == [None, 5, 3]


def test_a_million_neurons_are_measured_in_small_batches():
    """Arrays in `data=` are read in batches whose size does not show in the counts."""
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("f")
    for width, steps in ((100, 2), (2**18, 3)):
        model = sequential(3, tf.keras.layers.Dense(width, "relu"), tf.keras.layers.Dense(1))
        probe = ReluProbe(data=(x, x[:, :1]))
        model.fit(x, x[:, :1], verbose=0, callbacks=[probe])
        assert probe._source._batches.steps == steps
        assert probe.report == replace(measure(model, (x, x[:, :1])), source="data", epoch=0)


@pytest.mark.parametrize("kind", ["arrays", "dataset", "labels"])
def test_complex_data_is_refused(kind):
    model = sequential(3, tf.keras.layers.Dense(2, "relu"), tf.keras.layers.Dense(1))
    x, y = np.ones((8, 3), np.complex64), np.ones((8, 1), "f")
    data = {"arrays": x, "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(4), "labels": (x.real, y + 1j)}[
        kind
    ]
    with pytest.raises(ValueError, match=r"^data is complex, and Keras would drop its imaginary part; expected real"):
        measure(model, data)


@pytest.mark.parametrize(
    "times", [np.array(["2026-01-01"] * 8, "datetime64[D]"), np.arange(8).astype("timedelta64[s]")]
)
def test_times_are_refused(times):
    model = sequential(1, tf.keras.layers.Dense(2, "relu"))
    with pytest.raises(ValueError, match=rf"^data has times \(dtype {re.escape(str(times.dtype))}\), which TensorFlow"):
        measure(model, times.reshape(8, 1))


def test_a_model_may_have_complex_inputs():
    try:
        inputs = tf.keras.Input((3,), dtype="complex64")
    except ValueError:
        pytest.skip("this version of Keras has no complex inputs")
    parts = tf.keras.layers.Lambda(tf.abs)(inputs)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(2, "relu", bias_initializer="ones")(parts))
    assert measure(model, np.ones((8, 3), np.complex64)).samples == 8


GROWTH = """
import numpy as np, tensorflow as tf
from growth import known, used
from models import sequential
from relu_probe import measure
L = tf.keras.layers
model = sequential(4, L.Dense(6, "relu"), L.Dense(1))
data = tf.data.Dataset.from_tensor_slices((np.ones((20, 4), "f"), np.ones((20, 1), "f"))).batch(8)
grown = {}
for most in (None, 11):
    for _ in range(8):
        measure(model, data, max_samples=most)
    before = used()
    for _ in range(20):
        measure(model, data, max_samples=most)
    grown[most] = (used() - before) / 20
print(float(known() and grown[11] - grown[None]))
"""


def test_max_samples_leaves_nothing_behind():
    """`Dataset.scan` left 200,000 bytes a call."""
    assert float(output(GROWTH, PYTHONMALLOC="malloc")) < 10_000
