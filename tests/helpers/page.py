"""TensorBoard's server, and its page in headless Chromium."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-dev-shm-usage --hide-scrollbars"
)

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER and find_spec("selenium")),
    reason="needs Debian's chromium and chromium-driver, and selenium",
)


@contextmanager
def tensorboard(log_dir):
    """Starts a server as `tensorboard --logdir` does, and yields its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir), "--port", "0", "--host", "localhost"]
    with subprocess.Popen([*command, "--reload_interval", "1"], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield _address(process.stderr)
        finally:
            process.terminate()


def _address(lines):
    """Returns the address that the server prints to `lines`."""
    read = []
    for line in lines:
        read.append(line)
        if found := re.search(r"http://localhost:\d+/", line):
            return found[0]
    raise RuntimeError(f"TensorBoard's server did not start:\n{''.join(read)}")


def fetch(address, path, **query):
    """Returns the parsed answer of one of the server's JSON end points."""
    with urlopen(f"{address}data/{path}?{urlencode(query)}", timeout=60) as answer:
        return json.load(answer)


def hparams_groups(address, number, metric):
    """Returns `(hparams, metrics)` of each training on the page HParams; [] before all `number` of them have the metric."""
    question = {"allowedStatuses": ["STATUS_SUCCESS"], "startIndex": 0, "sliceSize": 100}
    headers = {"Content-Type": "application/json"}
    path = f"{address}data/plugin/hparams/session_groups"
    with urlopen(Request(path, json.dumps(question).encode(), headers), timeout=60) as answer:
        groups = json.load(answer).get("sessionGroups", [])
    found = [(g["hparams"], {m["name"]["tag"]: m.get("value", 0) for m in g.get("metricValues", [])}) for g in groups]
    return found if len(found) == number and all(metric in metrics for _, metrics in found) else []


@contextmanager
def chromium(width=1200, height=900):
    """Starts a browser with an empty profile, and yields its selenium driver."""
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
    """Calls `found` until it returns something truthy, and returns that: the page draws when its data arrives."""
    end = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > end:
            raise TimeoutError(f"still nothing after {seconds} s: {found}")
        time.sleep(0.2)
    return value


def show(driver, address, place):
    """Loads the page; `place` is its query and fragment."""
    driver.get("about:blank")  # a new fragment alone would not reload the page
    driver.get(address + place)


def elements(driver, selector):
    """Returns all matching elements, those in shadow trees too: Polymer draws half of the page."""
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
