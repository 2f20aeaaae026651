"""Script that makes the README's picture of TensorBoard's page: `python tests/helpers/screenshot.py [FILE]`.

It runs the demo and needs what `tests/integration/test_page.py` needs: Debian's chromium and chromium-driver, and selenium.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

import page

FILE = Path(__file__).parents[1] / "tensorboard.png"
WIDTH, HEIGHT = 1400, 1420  # of the window; the page is smaller
TAGS, RUNS = "^(a_overview|activation_rate|blocked_fraction|dead_fraction|life)/", "^(zeros|sick_control)/relu_probe$"


def main(file=FILE):
    """Runs the demo, shows its run in the browser, and saves the picture."""
    with tempfile.TemporaryDirectory() as log_dir:
        subprocess.run([sys.executable, "-m", "relu_probe", "demo", "--log-dir", log_dir], check=True)
        with page.tensorboard(log_dir) as address, page.chromium(WIDTH, HEIGHT) as driver:
            page.wait_for(lambda: len(page.fetch(address, "plugin/images/tags")) == 5)
            query = urlencode({"tagFilter": TAGS, "runFilter": RUNS, "smoothing": 0})
            page.show(driver, address, f"?{query}#timeseries")
            settle(driver)
            driver.save_screenshot(str(file))


def settle(driver):
    """Shows outliers too, closes the settings to make room for the cards, and waits until all of them are drawn."""
    (outliers,) = page.wait_for(lambda: texts(driver, "mat-checkbox", "Ignore outliers in chart scaling"))
    outliers.find_element("css selector", "input").click()
    texts(driver, "button", "Settings")[0].click()
    page.wait_for(lambda: len(texts(driver, "scalar-card", "Relative")) == 2)
    page.wait_for(lambda: len(page.elements(driver, "image-card img")) == 4)
    page.wait_for(lambda: len(page.elements(driver, "histogram-card g.histogram path")) == 2 * 6)
    time.sleep(3)  # animations end


def texts(driver, selector, text):
    """Returns the elements that contain `text`."""
    return [element for element in page.elements(driver, selector) if text in element.text]


if __name__ == "__main__":
    main(*sys.argv[1:2])
