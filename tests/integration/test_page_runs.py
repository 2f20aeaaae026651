"""TensorBoard's page for the run of a loop, and its page HParams, in headless Chromium."""

import numpy as np
import page
import pytest
import tensorflow as tf
from models import sequential
from tensorboard.plugins.hparams import api as hparams

from relu_probe import ReluProbe, watch

K, L = tf.keras, tf.keras.layers
X, Y = np.ones((8, 2), "f"), np.ones((8, 1), "f")
BIASES = [-100.0, 1.0]

pytestmark = page.needs_chromium


def net(bias):
    start = K.initializers.Constant(bias)
    hidden = L.Dense(4, "relu", kernel_initializer="ones", bias_initializer=start, name="hidden")
    return sequential(2, hidden, L.Dense(1), optimizer=K.optimizers.SGD(0.0))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server for two fits with different initial biases, and a loop."""
    logs = tmp_path_factory.mktemp("logs")
    for bias in BIASES:
        run = str(logs / f"bias_{bias:g}")
        net(bias).fit(X, Y, verbose=0, callbacks=[ReluProbe(run), hparams.KerasCallback(run, {"bias": bias})])
    model = net(1.0)
    with watch(model, log_dir=logs, name="loop") as w:
        for epoch in range(3):
            model.train_on_batch(X, Y)
            w.end_epoch(epoch)
    with page.tensorboard(logs) as address:
        page.wait_for(lambda: len(page.fetch(address, "runs")) == 5)
        yield address


@pytest.fixture(scope="module")
def driver():
    with page.chromium() as driver:
        yield driver


def test_the_overview_of_a_loop(server, driver):
    page.show(driver, server, "?tagFilter=overview&runFilter=loop#timeseries")
    (card,) = page.wait_for(lambda: page.elements(driver, "image-card"))
    page.wait_for(lambda: "Step 2" in card.text)
    assert "loop" in card.text


def test_the_server_knows_the_hyperparameters_of_each_run_and_its_dead_fraction(server):
    groups = page.wait_for(lambda: page.hparams_groups(server, len(BIASES), "dead_fraction"))
    assert {hparams["bias"]: metrics["dead_fraction"] for hparams, metrics in groups} == {-100: 1, 1: 0}


def test_the_page_hparams_has_columns_for_the_hyperparameter_and_the_dead_fraction(server, driver):
    page.show(driver, server, "#hparams")
    wanted = {"bias", "relu_probe.dead_fraction", "relu_probe.dead_fraction/hidden"}
    page.wait_for(lambda: wanted <= {cell.text for cell in page.elements(driver, "vaadin-grid-cell-content")})
