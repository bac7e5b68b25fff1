"""What the Read screen costs over a long text: paint, rows, the whole triangle, responses, elements, memory.

pip install 'clearhead[test]' && scripts/browser
python bench/read.py --items 32768 --rows 40
python bench/read.py --items 131072 --rows 40
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PATIENCE = 300  # seconds

from tests.conftest import chromium  # noqa: E402


class Measured:
    """A page, and what its requests were answered with."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sizes: list[tuple[int, str]] = []
        self.milliseconds: dict[str, list[float]] = {}
        page.on("response", self.received)

    def received(self, response: Any) -> None:
        """Note a response's size, and what Python says that it took."""
        what = response.url.split("?")[0].rsplit("/", 1)[-1]
        body = response.body()
        self.sizes.append((len(body), what))
        if found := re.search(rb'"ms":([\d.]+)', body[:200_000]):
            self.milliseconds.setdefault(what, []).append(float(found[1]))

    def until(self, script: str) -> float:
        """Wait until a script says true; returns the seconds."""
        start = time.perf_counter()
        while not self.page.evaluate(script):
            if time.perf_counter() - start > PATIENCE:
                raise TimeoutError(script)
            time.sleep(0.01)
        return time.perf_counter() - start


def measure(address: str, rows: int, items: int) -> None:
    """Open the screen, read rows, and print what it took."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--enable-precise-memory-info"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        seen = Measured(page)
        start = time.perf_counter()
        page.goto(address)
        seen.until("performance.getEntriesByType('paint').length > 0")
        paint = page.evaluate("performance.getEntriesByType('paint').at(-1).startTime")
        seen.until("document.querySelectorAll('.mass li').length > 0")
        first_row = time.perf_counter() - start
        seen.until("/pixel|square/.test(document.querySelector('.words .status')?.textContent ?? '')")
        triangle = time.perf_counter() - start
        walls = [change_row(seen) for _ in range(rows)]
        page.locator(".text").first.evaluate("e => { e.scrollTop = 1e9 }")
        page.wait_for_timeout(500)
        elements = page.evaluate("document.querySelectorAll('*').length")
        heap = page.evaluate("performance.memory.usedJSHeapSize / 1e6")
        largest = max(seen.sizes)
        strips = seen.milliseconds.get("tile", [0])
        print(f"{items:,} items: paint {paint:.0f} ms, first row {first_row:.2f} s, whole triangle {triangle:.2f} s")
        print(f"row change: page {1000 * median(walls):.0f} ms median ({1000 * max(walls):.0f} at most), ", end="")
        print(f"Python {median(seen.milliseconds['line']):.1f} ms of processor time median")
        print(f"map: {len(strips)} strips, {sum(strips) / 1000:.2f} s of processor time, {max(strips):.0f} ms at most")
        print(f"largest response {largest[0]:,} bytes ({largest[1]}), {elements} elements, heap {heap:.0f} MB")
        browser.close()


def change_row(seen: Measured) -> float:
    """Move one token back by the keyboard; the seconds until the sentence and the text show it."""
    page = seen.page
    script = "document.querySelector('.chip').textContent"
    before = page.evaluate(script)
    page.locator(".text").first.focus()
    return float(
        page.evaluate(
            """async ([script, before]) => {
                const start = performance.now();
                const target = document.querySelector('.text');
                target.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', bubbles: true}));
                while (document.querySelector('.chip').textContent === before) await new Promise(requestAnimationFrame);
                await new Promise(requestAnimationFrame);
                return (performance.now() - start) / 1000;
            }""",
            [script, before],
        )
    )


def main() -> None:
    """Serve a made-up text, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=32768)
    parser.add_argument("--rows", type=int, default=40)
    options = parser.parse_args()
    command = [sys.executable, "-u", "-m", "tests.view.needle", str(options.items)]
    server = subprocess.Popen(  # noqa: S603
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        assert server.stdout is not None
        measure(re.search(r"http://\S+", server.stdout.readline())[0], options.rows, options.items)
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    main()
