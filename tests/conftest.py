"""Fixtures and hooks for all tests."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault(
    "TF_ENABLE_ONEDNN_OPTS", "1"
)  # channels_first needs it; TensorFlow 2.16 enables it on some CPUs only

import numpy as np
import pytest
from hypothesis import settings

pytest.register_assert_rewrite(
    "assertions", "child_process", "commands", "faulty_data", "fuzz_checks", "harm", "report_text"
)

settings.register_profile("no clock", deadline=None)
settings.register_profile("long", deadline=None, max_examples=300)  # for the tests with random models
settings.load_profile("no clock")


def pytest_addoption(parser):
    parser.addoption("--clinic", action="store_true", help="run every training of tests/clinic with all its seeds")


def pytest_terminal_summary(terminalreporter):
    """Prints how many random cases the fuzz test ran, and how many failed."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    for report in reports:
        for name, value in getattr(report, "user_properties", []):
            if name == "fuzz":
                terminalreporter.write_line(f"fuzz, {value}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps neighbouring tests on one worker, so that a module's fixtures (a server, a run of the demo) are made once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(autouse=True, scope="module")
def _frozen():
    """Excludes objects that are alive when a module begins from garbage collection.

    Keras 3's `clear_session` runs a collection after each test. Without the exclusion it walks a million objects of
    TensorFlow (0.2 s), and those that Keras itself never releases, with or without a probe: 18 graphs of the smallest
    training. After hundreds of tests a collection would take a second. Objects are not excluded after each test, because
    then those that live as long as a module, or need a second collection, would never be freed.
    """
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    """Seeds each test, and clears Keras's state after it."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    yield
    tf.keras.backend.clear_session()


@pytest.fixture
def policy(request):
    """The global mixed-precision policy whose name the test passes as the parameter."""
    import tensorflow as tf

    tf.keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    tf.keras.mixed_precision.set_global_policy("float32")


@pytest.fixture
def digits_like():
    """`(x, y)`: 96 samples of 8 inputs in [0, 1], and one-hot labels of 3 classes."""
    rng = np.random.default_rng(0)
    return rng.random((96, 8), np.float32), np.eye(3, dtype=np.float32)[rng.integers(0, 3, 96)]
