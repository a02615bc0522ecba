"""How soon the page shows its first picture, and how long a frame takes while ε is dragged.

    python tests/benchmarks/page.py
    python tests/benchmarks/page.py img/page_mine.keras.html

In headless Chromium, without a graphics card.  The goals are 1 s and 50 ms; the median of five
loads, and of a hundred places of the slider for each network.

reads   img/page.html, or the page that is named
writes  nothing
"""

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import browser

# The first frame with the picture at the right, in ms; an empty canvas is 300 wide.
WATCH = """
addEventListener("DOMContentLoaded", () => {
  const look = (now) => {
    const canvas = document.getElementById("after");
    if (canvas.width !== 300) window.firstPicture = now;
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
"""
# From the slider's event to the next frame but one: what lies between two frames, and the work.
DRAG = """
const done = arguments[0], slider = document.getElementById("eps"), times = [];
const next = (i) => {
  if (i > 100) return done(times);
  const start = performance.now();
  slider.value = (i / 100) * slider.max;
  slider.dispatchEvent(new Event("input"));
  const worked = performance.now() - start;
  requestAnimationFrame(() => {
    times.push([worked, performance.now() - start]);
    next(i + 1);
  });
};
requestAnimationFrame(() => next(0));
"""


def main():
    root = Path(__file__).resolve().parent.parent.parent
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "img" / "page.html"
    driver = browser.start()
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    first = []
    for _ in range(5):
        browser.show(driver, path)
        first.append(driver.execute_script("return window.firstPicture"))
    print(f"first picture after {statistics.median(first) / 1000:.2f} s")
    for network in driver.execute_script("return networks.map((network) => network.name)"):
        choose = "choose({ network: networks.find(({ name }) => name === arguments[0]) })"
        driver.execute_script(choose, network)
        browser.settle(driver)
        driver.set_script_timeout(60)
        worked, frames = zip(*driver.execute_async_script(DRAG), strict=True)
        print(
            f"{network}: {statistics.median(worked):.1f} ms of work for a place of the slider, "
            f"a frame after {statistics.median(frames):.1f} ms, at most {max(frames):.1f} ms"
        )
    driver.quit()


if __name__ == "__main__":
    main()
