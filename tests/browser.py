"""Chromium without a window, for the tests of the page; and the picture of it in the README.

    python tests/browser.py

reads   img/page.html, from common/page.py
writes  img/page.png
"""

import json
from pathlib import Path

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
MISSING = "no Chromium with its driver in /usr/bin: on Debian, .ci/browser installs both"


def start():
    """A browser; `quit()` ends it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    # A root in a container has no sandbox, and little shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--hide-scrollbars")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(str(DRIVER)))


def resize(browser, width, height):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def show(browser, path, width=1280, height=720):
    """Open a page from disk and wait until its searches are done."""
    resize(browser, width, height)
    browser.get(Path(path).absolute().as_uri())
    settle(browser)


def settle(browser):
    from selenium.webdriver.support.ui import WebDriverWait

    done = "return document.getElementById('attack').getAttribute('aria-busy') === 'false'"
    WebDriverWait(browser, 60, 0.05).until(lambda browser: browser.execute_script(done))


def requests(browser):
    """The addresses that were asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = (event for event in events if event["method"] == "Network.requestWillBeSent")
    return [event["params"]["request"]["url"] for event in sent]


if __name__ == "__main__":
    img = Path(__file__).resolve().parent.parent / "img"
    browser = start()
    show(browser, img / "page.html")
    browser.save_screenshot(str(img / "page.png"))
    browser.quit()
    print("wrote img/page.png")
