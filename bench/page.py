"""How quick the page is: first paint, a frame while an arrow is dragged, a change with twelve items; and its size.

    python bench/page.py

Medians in the browser, beside their budgets: 1 s, 16 ms, 50 ms, 60 kB.
"""

import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

STATIC = Path(__file__).parents[1] / "clearhead/view/static"
TWELVE = ";".join(f"{j % 5 - 2},{j % 3 - 1}" for j in range(12))
FRAMES = """async () => {
  const tip = document.querySelector('[data-tip="5"]').getBoundingClientRect(), times = [];
  const at = (type, x, y) => new PointerEvent(type, { bubbles: true, clientX: x, clientY: y, pointerId: 1 });
  const x = tip.left + tip.width / 2, y = tip.top + tip.height / 2;
  document.querySelector('[data-tip="5"]').dispatchEvent(at('pointerdown', x, y));
  for (let k = 0; k < 60; k++) {
    const start = performance.now();
    document.dispatchEvent(at('pointermove', x + k, y - k / 2));
    document.body.getBoundingClientRect();
    times.push(performance.now() - start);
  }
  document.dispatchEvent(at('pointerup', x, y));
  return times;
}"""
CHANGES = """async () => {
  const times = [];
  for (let k = 0; k < 40; k++) {
    const cells = document.querySelectorAll('.tri .c'), start = performance.now();
    cells[(7 * k) % cells.length].click();
    document.body.getBoundingClientRect();
    times.push(performance.now() - start);
  }
  return times;
}"""
PAINT = "() => performance.getEntriesByType('paint').find(one => one.name === 'first-contentful-paint').startTime"


@contextmanager
def served() -> Iterator[str]:
    """The page's address, while it is served."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "clearhead", "view", "--no-browser"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield re.search(r"http://\S+", server.stdout.readline())[0]
    finally:
        server.terminate()


def main() -> None:
    """Print each median beside its budget."""
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        paints = []
        for _ in range(7):
            page.goto("about:blank")
            page.goto(f"{address}#vectors={TWELVE}&step=0&told=true")
            page.locator(".tri").wait_for()
            paints.append(page.evaluate(PAINT))
        show("first paint", paints, 1000)
        show("frame of a drag", page.evaluate(FRAMES), 16)
        show("change, twelve items", page.evaluate(CHANGES), 50)
        browser.close()
    size = sum(file.stat().st_size for file in STATIC.glob("*.js"))
    print(f"JavaScript by hand       {size / 1000:6.1f} kB  of 60")


def show(what: str, times: list[float], budget: float) -> None:
    """One line."""
    print(
        f"{what:24} {statistics.median(times):6.1f} ms  of {budget}   (least {min(times):.1f}, most {max(times):.1f})"
    )


if __name__ == "__main__":
    main()
