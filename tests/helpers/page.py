"""The real TensorBoard server, and its real page in headless Chromium."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from urllib.parse import urlencode
from urllib.request import urlopen

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-dev-shm-usage --hide-scrollbars"
)


@contextmanager
def tensorboard(log_dir):
    """Yields the address of a server on `log_dir`, as `tensorboard --logdir` starts it."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir), "--port", "0", "--host", "localhost"]
    with subprocess.Popen([*command, "--reload_interval", "1"], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield _address(process.stderr)
        finally:
            process.terminate()


def _address(lines):
    said = []
    for line in lines:
        said.append(line)
        if found := re.search(r"http://localhost:\d+/", line):
            return found[0]
    raise RuntimeError(f"TensorBoard's server did not start:\n{''.join(said)}")


def fetch(address, path, **query):
    """What a JSON end point of the server answers."""
    with urlopen(f"{address}data/{path}?{urlencode(query)}", timeout=60) as answer:
        return json.load(answer)


@contextmanager
def chromium(width=1200, height=900):
    """Yields selenium's driver of a browser that has seen nothing yet."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"]:
            options.add_argument(flag)
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


def wait_for(found, seconds=60):
    """What `found()` gives, as soon as it is truthy: the page draws when its data arrives."""
    end = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > end:
            raise TimeoutError(f"nothing after {seconds} s, at {found}")
        time.sleep(0.2)
    return value


def show(driver, address, place):
    driver.get("about:blank")  # a change of the fragment alone would not load the page anew
    driver.get(address + place)


def elements(driver, selector):
    """All that match, in shadow trees too: half of the page is made of Polymer's elements."""
    return driver.execute_script(_DEEP, selector)


_DEEP = """
const found = [];
const walk = (root) => {
  for (const element of root.querySelectorAll("*")) {
    if (element.matches(arguments[0])) found.push(element);
    if (element.shadowRoot) walk(element.shadowRoot);
  }
};
walk(document);
return found;
"""
