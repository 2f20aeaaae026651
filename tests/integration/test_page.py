"""End-to-end tests: a fit with planted deaths, TensorBoard's server, and its page in headless Chromium."""

import re
from urllib.request import urlopen

import numpy as np
import page
import pytest
import screenshot
import tensorflow as tf
from models import sequential
from page import needs_chromium
from pictures import life_picture

from relu_probe import ReluProbe
from relu_probe.report.life_image import DEAD
from relu_probe.tensorboard.life_picture import FOOT, LEFT, TOP
from relu_probe.tensorboard.overview_picture import dead_colours
from relu_probe.tensorboard.summaries import OVERVIEW_TAG, how_to_open
from relu_probe.tensorboard.summary_values import histogram

K, L = tf.keras, tf.keras.layers
EPOCHS = 6
NAMES = ["first", "second", "third"]
SCALARS, RATES = ["dead_fraction", "blocked_fraction"], ["activation_rate", "gradient_rate"]


class Kill(K.callbacks.Callback):
    """Kills neurons of "third" in epoch 3, and more of them in epoch 5."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch in (3, 5):
            kernel, bias = self.model.get_layer("third").get_weights()
            bias[: 4 * epoch] = -100
            self.model.get_layer("third").set_weights([kernel, bias])


def born_dead(neurons, dead):
    return K.initializers.Constant(np.where(np.arange(neurons) < dead, -100.0, 0.1))


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    """The log directory, and the reports whose values it must contain."""
    K.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 16)).astype(np.float32)
    y = np.eye(4, dtype=np.float32)[x[:, :4].argmax(axis=1)]
    first = L.Dense(48, "relu", bias_initializer=born_dead(48, 30), name="first")
    second = L.Dense(64, "relu", bias_initializer=born_dead(64, 6), name="second")
    layers = [first, second, L.Dense(32, "relu", name="third"), L.Dense(4, "softmax")]
    model = sequential(16, *layers, optimizer="adam", loss="categorical_crossentropy")
    probe = ReluProbe(tmp_path_factory.mktemp("logs"))
    model.fit(x, y, epochs=EPOCHS, verbose=0, callbacks=[probe, Kill()])
    assert [report["third"].dead_fraction > 0.6 for report in probe.reports] == [False] * 5 + [True]
    return probe.log_dir, probe.reports


@pytest.fixture(scope="module")
def server(fit):
    with page.tensorboard(fit[0]) as address:
        page.wait_for(lambda: "relu_probe" in page.fetch(address, "runs"))
        page.wait_for(lambda: len(page.fetch(address, "plugin/images/tags").get("relu_probe", ())) == 1 + len(NAMES))
        yield address


@pytest.fixture(scope="module")
def browser():
    with page.chromium(height=2000) as driver:  # the page draws only visible cards
        yield driver


@pytest.fixture
def driver(browser):
    browser.get_log("browser")
    yield browser
    assert errors(browser) == []


def errors(driver):
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def ask(server):
    """Returns a plugin's answer about a tag of the run."""
    return lambda path, tag, **more: page.fetch(server, f"plugin/{path}", run="relu_probe", tag=tag, **more)


# --- the values behind the charts -------------------------------------------------------------------------------------


def test_scalars(fit, ask):
    for scalar in SCALARS:
        for tag, parts in [(scalar, fit[1]), *((f"{scalar}/{n}", [r[n] for r in fit[1]]) for n in NAMES)]:
            points = [(step, value) for _, step, value in ask("scalars/scalars", tag)]
            assert points == [(i, pytest.approx(getattr(part, scalar), abs=1e-7)) for i, part in enumerate(parts)]
    assert [value for _, _, value in ask("scalars/scalars", "dead_fraction/first")] == [0.625] * EPOCHS


def test_custom_scalars(ask):
    found = ask("custom_scalars/scalars", "^dead_fraction/.*")["tag_to_events"]
    assert {tag: found[tag] for tag in found} == {
        f"dead_fraction/{n}": ask("scalars/scalars", f"dead_fraction/{n}") for n in NAMES
    }


def test_histograms(fit, ask):
    for rate in RATES:
        for name in NAMES:
            for report, (_, step, buckets) in zip(fit[1], ask("histograms/histograms", f"{rate}/{name}"), strict=True):
                assert step == report.epoch
                np.testing.assert_allclose(buckets, histogram(getattr(report[name], rate)), atol=1e-12)
                zeros = report[name].dead if rate == "activation_rate" else report[name].zero_gradient
                assert buckets[0][2] == np.count_nonzero(zeros)


def test_pictures(fit, ask, server):
    for name in NAMES:
        pictures = ask("images/images", f"life/{name}", sample=0)
        assert [picture["step"] for picture in pictures] == [0, 1, 3, 5]
        with urlopen(f"{server}data/plugin/images/individualImage?{pictures[-1]['query']}", timeout=60) as answer:
            newest = tf.io.decode_png(answer.read()).numpy()
        np.testing.assert_array_equal(newest, life_picture(name, fit[1]))
        dead = np.mean([report[name].dead_fraction for report in fit[1]])
        life = newest[TOP:-FOOT, LEFT:]
        assert (life == DEAD).all(axis=-1).mean() == pytest.approx(dead, rel=0.1)  # the right margin is white


def test_the_overview(fit, ask, server):
    pictures = ask("images/images", OVERVIEW_TAG, sample=0)
    assert [picture["step"] for picture in pictures] == [0, 1, 3, 5]
    with urlopen(f"{server}data/plugin/images/individualImage?{pictures[-1]['query']}", timeout=60) as answer:
        newest = tf.io.decode_png(answer.read()).numpy()
    for name in NAMES:
        colour = dead_colours(fit[1][-1][name].dead_fraction)
        assert (newest == colour).all(axis=-1).any()
    assert not (newest == dead_colours(0.5)).all(axis=-1).any()  # no layer has this fraction, at no time


def test_cards(fit, ask):
    cards = ask("text/text", "report")
    assert [card["step"] for card in cards] == list(range(EPOCHS))
    for report, card in zip(fit[1], cards):
        rows = re.findall(r"<tr>\s*<td[^>]*>(\w+)</td>\s*<td[^>]*>(\d+)</td>\s*<td[^>]*>(\d+) ", card["text"])
        assert rows == [(n, str(report[n].neurons), str(np.count_nonzero(report[n].dead))) for n in NAMES]


# --- the page ---------------------------------------------------------------------------------------------------------


@needs_chromium
def test_the_console_is_watched(driver):
    driver.execute_script("console.error('planted')")
    assert len(errors(driver)) == 1


def card_texts(driver):
    return [card.text for card in page.elements(driver, "scalar-card")]


@needs_chromium
def test_the_page_draws_a_card_for_the_model_and_each_layer(driver, server, fit):
    page.show(driver, server, "?tagFilter=^dead_fraction&smoothing=0#timeseries")
    page.wait_for(lambda: sum("Relative" in text for text in card_texts(driver)) == 1 + len(NAMES))
    texts, newest = card_texts(driver), fit[1][-1]
    for text, part in zip(texts, [newest, *(newest[name] for name in NAMES)], strict=True):
        _, value, step, *_ = text.split("Relative")[1].split()
        assert (float(value), step) == (pytest.approx(part.dead_fraction, abs=1e-4), str(EPOCHS - 1))


def heights(card):
    """Returns `(steps, buckets)`: the height of a histogram card's path in each bucket, in pixels."""
    paths = [path.get_attribute("d") for path in card.find_elements("css selector", "g.histogram path")]
    assert "NaN" not in "".join(paths)
    down = np.array([[float(y) for y in re.findall(r"[ML][^,]+,([^L]+)", path)] for path in paths])
    return down[:, :1] - down[:, 1:-1]  # the first and the last point lie on the axis


def in_proportion(drawn, counts):
    """Whether one scale, in pixels per neuron, fits all buckets of all steps."""
    if drawn.shape != counts.shape:
        return False
    scale = drawn.sum() / counts.sum()
    return bool(np.allclose(drawn, counts * scale, atol=0.01 * drawn.max()))


def check_histograms(driver, fit):
    counts = {name: np.stack([histogram(r[name].activation_rate)[:, 2] for r in fit[1]]) for name in NAMES}
    found = page.wait_for(lambda: page.elements(driver, "histogram-card"))
    page.wait_for(lambda: all(len(c.find_elements("css selector", "g.histogram path")) == EPOCHS for c in found))
    assert len(found) == len(NAMES)
    for card, name in zip(found, NAMES):
        drawn = heights(card)
        assert in_proportion(drawn, counts[name])
        dead = [np.count_nonzero(report[name].dead) for report in fit[1]]
        np.testing.assert_allclose(drawn[:, 0] / drawn.sum(axis=1) * fit[1][0][name].neurons, dead, atol=0.1)
        adaptive = np.roll(counts[name], 1, axis=1)  # the planted mistake: the dead in another bucket
        assert not in_proportion(drawn, adaptive)


@needs_chromium
def test_the_first_bar_of_a_histogram_is_the_dead_in_both_modes(driver, server, fit):
    page.show(driver, server, "?tagFilter=^activation_rate#timeseries")
    check_histograms(driver, fit)
    (mode,) = (select for select in page.elements(driver, "mat-select") if select.text == "Offset")
    driver.execute_script("arguments[0].scrollIntoView()", mode)
    mode.click()
    (overlay,) = page.wait_for(lambda: [o for o in page.elements(driver, "mat-option") if o.text == "Overlay"])
    overlay.click()
    page.wait_for(lambda: page.elements(driver, "tb-histogram .main.overlay"))
    check_histograms(driver, fit)


def drawn_lines(driver):
    return [shape for path in page.elements(driver, "path.line") if "L" in (shape := path.get_attribute("d") or "")]


@needs_chromium
def test_custom_scalars_draw_every_layer_in_one_chart(driver, server):
    page.show(driver, server, "#custom_scalars&_smoothingWeight=0")
    page.wait_for(lambda: len(drawn_lines(driver)) == len(SCALARS) * len(NAMES))
    lines = drawn_lines(driver)
    assert all(line.count("L") == EPOCHS - 1 for line in lines)
    assert "NaN" not in "".join(lines)
    assert len(set(lines[: len(NAMES)])) == len(NAMES)
    matches = " ".join(e.get_attribute("textContent") for e in page.elements(driver, "[class*=match]"))
    assert all(f"{scalar}/{name} (relu_probe)" in matches for scalar in SCALARS for name in NAMES)


@needs_chromium
def test_the_pictures_are_there(driver, server, fit):
    page.show(driver, server, "?tagFilter=^life#timeseries")
    page.wait_for(lambda: len(page.elements(driver, "image-card img")) == len(NAMES))  # drawn one by one
    images = page.elements(driver, "image-card img")
    size = "return [arguments[0].naturalWidth, arguments[0].naturalHeight]"
    page.wait_for(lambda: all(driver.execute_script(size, image)[0] for image in images))
    shown = [driver.execute_script(size, image) for image in images]
    lives = [life_picture(name, fit[1]) for name in NAMES]
    assert shown == [list(life.shape[1::-1]) for life in lives]


@needs_chromium
def test_the_printed_link_opens_the_page_on_the_overview(driver, server, fit):
    """Its first card, above the fold, is the overview, as large as it was drawn: so its text can be read."""
    link = re.search("http://localhost:6006/(.*)", how_to_open(fit[0]))[1]
    page.show(driver, server, link)
    (image,) = page.wait_for(lambda: page.elements(driver, "image-card img"))
    page.wait_for(lambda: len(card_texts(driver)) == 1 + len(NAMES))
    assert image.rect["y"] + image.rect["height"] < 700
    assert min(card.rect["y"] for card in page.elements(driver, "scalar-card")) > image.rect["y"]
    natural = driver.execute_script("return arguments[0].naturalWidth", image)
    assert image.rect["width"] / natural > 0.9


@needs_chromium
def test_the_newest_card_is_on_top(driver, server, fit):
    page.show(driver, server, "#text")
    page.wait_for(lambda: len(page.elements(driver, ".step-value")) == EPOCHS)
    assert [step.text for step in page.elements(driver, ".step-value")] == [str(i) for i in range(EPOCHS)][::-1]
    cells = page.wait_for(lambda: [cell.text for cell in page.elements(driver, "td")])
    assert cells[:2] == ["first", "48"]
    assert cells[14:17] == ["third", "32", f"{np.count_nonzero(fit[1][-1]['third'].dead)} 62.5%"]


def test_the_readmes_picture_is_small():
    assert screenshot.FILE.stat().st_size < 150_000


@pytest.mark.once  # the slowest test of all; the tests above check on all versions what the page draws
@needs_chromium
def test_the_readmes_picture_can_be_made_again(tmp_path, capfd):
    """From a run of the demo. The pictures are not compared pixel by pixel, because the page shows times."""
    screenshot.main(tmp_path / "again.png")
    stored, again = (tf.io.decode_png(file.read_bytes()) for file in (screenshot.FILE, tmp_path / "again.png"))
    assert stored.shape == again.shape
    magenta = [(picture.numpy()[..., :3] == DEAD).all(axis=-1).mean() for picture in (stored, again)]
    assert magenta[1] == pytest.approx(magenta[0], rel=0.1)
    assert magenta[0] > 0.02  # the dead neurons of both runs: the life images are in it
