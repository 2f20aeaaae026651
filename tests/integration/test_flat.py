"""Memory and file handles do not grow over 1,000 epochs and 100 fits; each model and signature is traced once."""

import gc
import json
import sys
import weakref

import child_process
import growth
import numpy as np
import pytest
import tensorflow as tf

from relu_probe import ReluProbe, measure, watch
from relu_probe.measuring.measure import measurer_of
from relu_probe.measuring.model_state import ModelState

X, Y = growth.X, growth.Y
# The bytes by which memory may grow beyond the growth without a probe. In each epoch, Keras's History gets two more floats,
# and places for them in its lists. With `data`, beyond a plain pass over a dataset, of which TensorFlow keeps about 1 kB.
AN_EPOCH, A_PASS, A_FIT = 300, 700, 4000

OLD = tuple(int(number) for number in tf.__version__.split(".")[:2]) < (2, 17)
LEAKS = pytest.mark.skipif(OLD, reason="TensorFlow 2.16 itself keeps 400 bytes of each constant, 1 kB of each summary")


@pytest.fixture(scope="module")
def grown():
    if not growth.known():
        pytest.skip("the bytes in use are read from Linux's glibc")
    code = "import growth, json; print(json.dumps(growth.main()))"
    return json.loads(child_process.output(code, timeout=600, PYTHONMALLOC="malloc").splitlines()[-1])


def rates(looks, steps):
    """The growth in bytes for each epoch, or each fit, between the looks."""
    return [(b["bytes"] - a["bytes"]) / step for a, b, step in zip(looks, looks[1:], steps)]


@LEAKS
def test_a_thousand_epochs_are_flat(grown):
    (without,) = rates(grown["epochs without"], [100])
    assert max(rates(grown["1,000 epochs"], [400, 399])) < without + AN_EPOCH
    (planted,) = rates(grown["epochs, hoarding"], [50])
    assert planted > without + AN_EPOCH


@LEAKS
def test_measuring_data_grows_by_little_more_than_a_pass_over_it(grown):
    (found,), (without,) = rates(grown["data"], [100]), rates(grown["passes"], [100])
    assert found < without + A_PASS


def test_a_plain_summary_of_an_old_tensorflow_is_not_flat(grown):
    """The reason why other tests of this file are skipped on old versions of TensorFlow."""
    (each,) = rates(grown["summaries"], [100])
    assert each > 500 if OLD else each < 300


@LEAKS
def test_a_hundred_fits_are_flat(grown):
    (without,) = rates(grown["fits without"], [30])
    assert max(rates(grown["100 fits"], [40, 39])) < without + A_FIT
    (planted,) = rates(grown["fits, forgetting"], [3])
    assert planted > without + 20 * A_FIT


def test_one_event_file_is_open_during_a_fit_and_none_after(grown):
    """It is open twice: TensorFlow writes to it, and relu_probe locks it."""
    for name in ("1,000 epochs", "data"):
        assert {look["events"] for look in grown[name]} == {2}
    for name in ("100 fits", "fits without", "end"):
        assert {look["events"] for look in grown[name]} == {0}
    assert {look["files"] for look in grown["100 fits"]} == {grown["fits without"][0]["files"]}
    assert {look["files"] for look in grown["1,000 epochs"]} == {grown["epochs without"][0]["files"] + 2}


def test_no_thread_is_left(grown):
    start = grown["start"][0]["threads"]
    assert {look["threads"] for looks in grown.values() for look in looks} == {start}


# --- traces -----------------------------------------------------------------------------------------------------------


def traces(function):
    """The largest number of traces of the `tf.function`s that it consists of, some of which are in closures."""
    own = getattr(function, "experimental_get_tracing_count", None)
    inner = [function.python_function] if own else [c.cell_contents for c in getattr(function, "__closure__", 0) or ()]
    return max([own() if own else 0, *(traces(f) for f in inner if callable(f))])


def trained(callbacks, fits, **compile_args):
    """The train function after some fits with batches of 4 and 2 samples."""
    model = growth.net()
    model.compile("sgd", "mse", **compile_args)
    for _ in range(fits):
        model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
    return model.train_function


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}], ids=str)
def test_a_training_step_is_traced_as_often_as_keras_own(options):
    own = trained([], 1, **options)
    original = trained([ReluProbe(), ReluProbe(name="second"), ReluProbe(data=(X, Y), name="data")], 3, **options)
    assert traces(original._relu_probe.function) == traces(own) == traces(trained([], 3, **options)) > 0
    assert traces(original) == 0  # Keras's own function is never traced


def test_a_step_that_is_made_again_is_traced_again():
    """The planted mistake: counters that are forgotten between fits."""
    model, counted = growth.net(), []
    for _ in range(2):
        growth.forget()
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=[ReluProbe()])
        counted.append(model.train_function._relu_probe.function)
    assert counted[0] is not counted[1]


def test_a_measuring_step_is_traced_as_often_as_keras_evaluation():
    model = growth.net()
    for _ in range(3):
        for size in (4, 3):
            model.evaluate(X, Y, batch_size=size, verbose=0)
            measure(model, (X, Y), batch_size=size)
            measure(model, X, batch_size=size)
    model.fit(X, Y, verbose=0, callbacks=[ReluProbe(data=(X, Y), at_start=True)])
    steps = measurer_of(model)._steps
    assert sorted(gradients for gradients, _ in steps) == [False, True]
    for step in steps.values():
        assert traces(step) <= traces(model.test_function)


# --- what outlives a model --------------------------------------------------------------------------------------------


def test_nothing_outlives_the_model(tmp_path):
    probe, alive = ReluProbe(tmp_path), []
    for _ in range(2):
        model = growth.net()
        model.fit(X, Y, verbose=0, callbacks=[probe, ReluProbe(data=(X, Y), name="data")])
        measure(model, (X, Y))
        with watch(model):
            model.train_on_batch(X, Y)
        kept = [ModelState.of(model), ModelState.of(model).training_counters, ModelState.of(model).watch_counters]
        kept += [measurer_of(model), measurer_of(model).counters]
        alive += [weakref.ref(value) for value in [model, *kept]]
        del kept
    probe.set_model(growth.net())  # Keras's Callback holds a model until the next fit
    del model
    tf.keras.backend.clear_session()
    for _ in range(2):  # the end of a model frees objects that the next collection finds
        gc.collect()
    assert [ref() for ref in alive] == [None] * len(alive)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_after_an_interrupted_fit_the_next_use_of_the_probe_closes_the_file(tmp_path, error):
    """Keras skips `on_train_end`. The next fit closes the file, and so does the deletion of the probe."""

    class Breaks(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise error

    probe, model = ReluProbe(tmp_path), growth.net()
    for _ in range(3):
        with pytest.raises(error):
            model.fit(X, Y, verbose=0, callbacks=[probe, Breaks()])
        gc.collect()
        assert growth.look()["events"] == 2
    model.fit(X, Y, verbose=0, callbacks=[probe])
    assert growth.look()["events"] == 0
    with pytest.raises(error):
        model.fit(X, Y, verbose=0, callbacks=[probe, Breaks()])
    del probe
    model.fit(np.ones_like(X), Y, verbose=0)
    gc.collect()
    assert growth.look()["events"] == 0
